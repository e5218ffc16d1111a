//! Bytes to halves.

use core::cell::Cell;

use super::{byte, check_zero, cost, set_half};
use crate::Kernel;
use crate::call::{NONE, Widen, WidenColumns, WidenWindow};
use crate::dtcm::{self, BadCall, Bounds, Span, times};

impl Kernel for Widen {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let d = Bounds { words: dtcm_words };
        let (src, dst) = (d.span("src", self.src, self.count)?, d.span("dst", self.dst, times(2, self.count))?);
        // The upper half of the result is read before it is written.
        if self.src == self.dst.wrapping_add(4 * self.count) { Ok(()) } else { dst.apart_from(&[src]) }
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        if cfg!(target_arch = "arm") {
            #[cfg(target_arch = "arm")]
            crate::arm::int8::widen_signed(dtcm, self.src, self.dst, self.count);
            return;
        }
        let src = dtcm::words(dtcm, self.src, self.count as usize);
        let dst = dtcm::words(dtcm, self.dst, 2 * self.count as usize);
        for (src, dst) in src.iter().zip(dst.chunks_exact(2)) {
            let [a, b, c, d] = src.get().to_le_bytes().map(|b| u32::from(i16::from(b as i8) as u16));
            dst[0].set(a | b << 16);
            dst[1].set(c | d << 16);
        }
    }

    fn cycles(&self) -> u64 {
        cost::widen(self)
    }
}

impl WidenWindow {
    /// Rows that exist, counted from `first`.
    pub(super) fn held(&self) -> (u32, u32) {
        let first = i64::from(self.first);
        let (from, to) = (first.max(0), (first + i64::from(self.rows)).min(self.limit.into()));
        if from >= to { (0, 0) } else { ((from - first) as u32, (to - first) as u32) }
    }

    /// Whether the bytes take all of every row, if these are the rows that exist: there is no border.
    pub(super) fn covers(&self, (from, to): (u32, u32)) -> bool {
        self.columns.is_multiple_of(2) && self.columns / 2 == self.dst_row && to - from == self.rows
    }

    fn source(&self, d: &Bounds) -> Result<Span, BadCall> {
        let (from, to) = self.held();
        if from == to || self.columns == 0 {
            return d.span("src", self.src, 0);
        }
        let row = |r: u32| i64::from(times(r, self.src_row));
        d.part("src", self.src, row(from), row(to - 1) + i64::from(self.columns.div_ceil(4)))
    }
}

impl Kernel for WidenWindow {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_zero("zero", self.zero)?;
        if u64::from(self.left) + u64::from(self.columns) > 2 * u64::from(self.dst_row) {
            return Err(BadCall::value("dst_row", self.dst_row));
        }
        // Rows of no words would have no bound.
        dtcm::nonzero("dst_row", self.dst_row)?;
        let d = Bounds { words: dtcm_words };
        let words = times(self.rows, self.dst_row);
        let (src, dst) = (self.source(&d)?, d.span("dst", self.dst, words)?);
        dst.apart_from(&[src])?;
        if self.dst_odd != NONE {
            d.span("dst_odd", self.dst_odd, words)?.apart_from(&[src, dst])?;
        }
        Ok(())
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        let (row, columns, left) = (self.dst_row as usize, self.columns as usize, self.left as usize);
        let border = self.zero | self.zero << 16;
        let (from, to) = self.held();
        if !self.covers((from, to)) {
            fill(dtcm::words(dtcm, self.dst, self.rows as usize * row), border);
        }
        #[cfg(target_arch = "arm")]
        let whole = left % 2 == 0 && columns % 4 == 0;
        #[cfg(target_arch = "arm")]
        if whole && from < to {
            let (src, dst) = (self.src / 4 + from * self.src_row, self.dst / 4 + from * self.dst_row + self.left / 2);
            let (src, dst) = (&dtcm[src as usize..], &dtcm[dst as usize..]);
            crate::arm::int8::widen_rows(src, dst, self.columns / 4, to - from, self.src_row, self.dst_row);
        }
        #[cfg(target_arch = "arm")]
        if whole && self.dst_odd == NONE {
            return;
        }
        for r in 0..self.rows {
            let dst = &dtcm[self.dst as usize / 4 + r as usize * row..][..row];
            #[cfg(target_arch = "arm")]
            let (from, to) = if whole { (0, 0) } else { (from, to) };
            if (from..to).contains(&r) && columns > 0 {
                let src = &dtcm[self.src as usize / 4 + r as usize * self.src_row as usize..][..columns.div_ceil(4)];
                let mut i = 0;
                #[cfg(target_arch = "arm")]
                if left % 2 == 0 {
                    crate::arm::int8::widen_unsigned(src, &dst[left / 2..], columns as u32 / 4);
                    i = columns / 4 * 4;
                }
                #[cfg(not(target_arch = "arm"))]
                if left.is_multiple_of(2) {
                    for (s, d) in src[..columns / 4].iter().zip(dst[left / 2..].chunks_exact(2)) {
                        let s = s.get();
                        d[0].set(s & 0xFF | (s & 0xFF00) << 8);
                        d[1].set(s >> 16 & 0xFF | (s & 0xFF00_0000) >> 8);
                    }
                    i = columns / 4 * 4;
                }
                (i..columns).for_each(|i| set_half(dst, left + i, byte(src, i) as i32));
            }
            if self.dst_odd != NONE {
                shift(dst, &dtcm[self.dst_odd as usize / 4 + r as usize * row..][..row], self.zero);
            }
        }
    }

    fn cycles(&self) -> u64 {
        cost::widen_window(self)
    }
}

/// Sets all words.
fn fill(words: &[Cell<u32>], value: u32) {
    if cfg!(target_arch = "arm") {
        #[cfg(target_arch = "arm")]
        // SAFETY: the call was checked.
        unsafe {
            crate::arm::fill(words.as_ptr() as u32, words.len() as u32, value)
        };
        return;
    }
    words.iter().for_each(|w| w.set(value));
}

/// The copy of a row that begins with its second half.
fn shift(row: &[Cell<u32>], odd: &[Cell<u32>], zero: u32) {
    if cfg!(target_arch = "arm") {
        #[cfg(target_arch = "arm")]
        crate::arm::int8::shift(row, odd, zero);
        return;
    }
    for (i, o) in odd.iter().enumerate() {
        let next = row.get(i + 1).map_or(zero, |d| d.get() & 0xFFFF);
        o.set(row[i].get() >> 16 | next << 16);
    }
}

impl WidenColumns {
    /// Pixels of a row with its borders.
    pub(super) fn pixels(&self) -> u32 {
        self.left.saturating_add(self.width).saturating_add(self.right)
    }

    /// Rows of the picture that some output meets, counted from `first`.
    fn held(&self) -> (u32, u32) {
        if self.outputs == 0 || self.rows == 0 {
            return (0, 0);
        }
        let first = i64::from(self.first);
        let last = first + i64::from(times(self.outputs - 1, self.step).saturating_add(self.rows));
        let (from, to) = (first.max(0), last.min(self.limit.into()));
        if from >= to { (0, 0) } else { ((from - first) as u32, (to - first) as u32) }
    }
}

impl Kernel for WidenColumns {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_zero("zero", self.zero)?;
        dtcm::nonzero("dst_row", self.dst_row)?;
        let column = times(self.rows, self.channels);
        if times(self.pixels(), column) > times(2, self.dst_row) {
            return Err(BadCall::value("dst_row", self.dst_row));
        }
        // Columns of nothing would have no bound.
        dtcm::nonzero("rows", self.rows)?;
        dtcm::nonzero("channels", self.channels)?;
        let d = Bounds { words: dtcm_words };
        let words = times(self.outputs, self.dst_row);
        let (from, to) = self.held();
        let src = if from == to || self.width == 0 {
            d.span("src", self.src, 0)?
        } else {
            let row = |r: u32| i64::from(times(r, self.src_row));
            let bytes = times(self.width, self.channels);
            d.part("src", self.src, row(from), row(to - 1) + i64::from(bytes.div_ceil(4)))?
        };
        let dst = d.span("dst", self.dst, words)?;
        dst.apart_from(&[src])?;
        if self.dst_odd != NONE {
            d.span("dst_odd", self.dst_odd, words)?.apart_from(&[src, dst])?;
        }
        Ok(())
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        let (row, channels, rows) = (self.dst_row as usize, self.channels as usize, self.rows as usize);
        let (from, to) = self.held();
        for o in 0..self.outputs {
            let dst = &dtcm[self.dst as usize / 4 + o as usize * row..][..row];
            fill(dst, self.zero | self.zero << 16);
            #[cfg(target_arch = "arm")]
            if channels == 1 && self.width > 0 {
                // Rows of this output that exist.
                let first = times(o, self.step);
                let (low, high) = (from.max(first), to.min(first.saturating_add(self.rows)));
                if low < high {
                    let src = &dtcm[(self.src / 4 + low * self.src_row) as usize..];
                    let at = self.left * self.rows + (low - first);
                    let shape = (self.width, self.rows);
                    crate::arm::int8::spread_rows(src, dst, at, shape, (high - low, self.src_row));
                }
                if self.dst_odd != NONE {
                    shift(dst, &dtcm[self.dst_odd as usize / 4 + o as usize * row..][..row], self.zero);
                }
                continue;
            }
            for ky in 0..self.rows {
                let r = times(o, self.step).saturating_add(ky);
                if !(from..to).contains(&r) || self.width == 0 {
                    continue;
                }
                let src = &dtcm[self.src as usize / 4 + r as usize * self.src_row as usize..];
                for x in 0..self.width as usize {
                    let at = ((x + self.left as usize) * rows + ky as usize) * channels;
                    (0..channels).for_each(|c| set_half(dst, at + c, byte(src, x * channels + c) as i32));
                }
            }
            if self.dst_odd != NONE {
                shift(dst, &dtcm[self.dst_odd as usize / 4 + o as usize * row..][..row], self.zero);
            }
        }
    }

    fn cycles(&self) -> u64 {
        cost::widen_columns(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::half;
    use super::*;

    #[test]
    fn columns_hold_the_operands_of_an_output_together() {
        // A picture of 3 rows of 4 pixels of 2 channels, byte = 16 * row + 2 * pixel + channel.
        let mut dtcm = vec![0; 60];
        for r in 0..3 {
            for i in 0..8 {
                let word = &mut dtcm[r * 2 + i / 4];
                *word |= ((16 * r + i) as u32) << (8 * (i % 4));
            }
        }
        let call = WidenColumns {
            src: 0,
            src_row: 2,
            width: 4,
            channels: 2,
            first: -1,
            rows: 2,
            limit: 3,
            step: 1,
            outputs: 3,
            dst: 4 * 10,
            dst_odd: NONE,
            dst_row: 13,
            left: 1,
            right: 1,
            zero: 7,
        };
        // The window begins a row before the picture, which is not there.
        assert!(WidenColumns { dst: 0, ..call }.check(60).is_err());
        let call = WidenColumns { src: 0, first: 0, outputs: 2, ..call };
        call.check(60).unwrap();
        call.run(&mut dtcm);
        let cells = dtcm::cells(&mut dtcm);
        for o in 0..2i32 {
            for x in 0..6i32 {
                for ky in 0..2i32 {
                    for c in 0..2i32 {
                        let inside = (1..5).contains(&x);
                        let expected = if inside { 16 * (o + ky) + 2 * (x - 1) + c } else { 7 };
                        let at = ((x * 2 + ky) * 2 + c) as usize;
                        assert_eq!(half(&cells[10 + 13 * o as usize..], at), expected);
                    }
                }
            }
            assert_eq!(half(&cells[10 + 13 * o as usize..], 24), 7);
        }
    }

    #[test]
    fn signed_bytes_keep_their_sign() {
        let mut dtcm = vec![0x807F_FF01, 0, 0];
        Widen { src: 0, dst: 4, count: 1 }.run(&mut dtcm);
        assert_eq!(dtcm[1..], [0xFFFF_0001, 0xFF80_007F]);
        // From the upper half of the result.
        let mut dtcm = vec![0, 0, 0, 0x0403_0201, 0x0807_0605, 0x0C0B_0A09];
        Widen { src: 12, dst: 0, count: 3 }.run(&mut dtcm);
        assert_eq!(dtcm, [0x2_0001, 0x4_0003, 0x6_0005, 0x8_0007, 0xA_0009, 0xC_000B]);
    }

    #[test]
    fn windows_have_borders_and_a_shifted_copy() {
        // Two rows of five bytes; the window begins a row before the picture.
        let mut dtcm = vec![0; 40];
        (dtcm[0], dtcm[1]) = (0x0403_0201, 0xEE05);
        (dtcm[2], dtcm[3]) = (0x1413_1211, 0xEE15);
        for left in [1, 2] {
            let call = WidenWindow {
                src: 0u32.wrapping_sub(8),
                src_row: 2,
                columns: 5,
                first: -1,
                rows: 3,
                limit: 1,
                dst: 16,
                dst_odd: 16 + 48,
                dst_row: 4,
                left,
                zero: 9,
            };
            // A row that does not exist may lie before the memory.
            assert!(call.check(40).is_err());
            let call = WidenWindow { src: 0, first: 0, limit: 2, ..call };
            call.check(40).unwrap();
            call.run(&mut dtcm);
            let cells = dtcm::cells(&mut dtcm);
            let read = |at: usize| (0..8).map(|i| half(&cells[at..], i)).collect::<Vec<_>>();
            for (r, base) in [(0, 1), (1, 0x11)] {
                let expected: Vec<i32> =
                    (0..8).map(|i| if (left..left + 5).contains(&i) { base + (i - left) as i32 } else { 9 }).collect();
                assert_eq!(read(4 + 4 * r), expected);
                let shifted: Vec<i32> = expected[1..].iter().copied().chain([9]).collect();
                assert_eq!(read(16 + 4 * r), shifted);
            }
            assert_eq!(read(4 + 8), [9; 8]);
        }
    }

    #[test]
    fn hostile_calls_are_refused() {
        let good = WidenWindow {
            columns: 4,
            rows: 2,
            limit: 2,
            src_row: 1,
            dst: 8,
            dst_odd: NONE,
            dst_row: 2,
            ..Default::default()
        };
        assert_eq!(good.check(6), Ok(()));
        assert!(good.check(5).is_err());
        assert!(WidenWindow { dst_row: 0, columns: 0, rows: u32::MAX, ..good }.check(6).is_err());
        assert!(WidenWindow { left: 1, ..good }.check(6).is_err());
        assert!(WidenWindow { zero: 256, ..good }.check(6).is_err());
        assert!(WidenWindow { rows: u32::MAX, ..good }.check(6).is_err());
        assert!(Widen { src: 0, dst: 4, count: 2 }.check(100).is_err());
        assert!(Widen { src: 0, dst: 4, count: u32::MAX }.check(100).is_err());
    }
}
