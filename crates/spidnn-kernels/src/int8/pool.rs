//! Pooling of bytes.

use super::{byte, check_zero, cost, set_byte};
use crate::Kernel;
use crate::block::{Axis, check_window, window};
use crate::call::Pool8;
use crate::dtcm::{self, BadCall, Bounds, Span, row_offset, times};

impl Pool8 {
    pub(super) fn y_axis(&self) -> Axis {
        Axis { input: self.in_h, kernel: self.kh, stride: self.stride_y, dilation: 1, pad: self.pad_y, up: 1 }
    }
    pub(super) fn x_axis(&self) -> Axis {
        Axis { input: self.in_w, kernel: self.kw, stride: self.stride_x, dilation: 1, pad: self.pad_x, up: 1 }
    }
    /// The output rows: `oy0 .. oy_end`.
    pub(super) fn oy_end(&self) -> u32 {
        self.oy0.saturating_add(self.rows).min(self.out_h)
    }
    fn is_empty(&self) -> bool {
        self.oy_end() <= self.oy0 || self.out_w == 0 || self.channels == 0
    }

    /// Whether windows have two by two cells, touch, and lie inside along a row: the usual case, which has a form of its own.
    pub(super) fn is_two_by_two(&self) -> bool {
        let all = self.kh == 2 && self.kw == 2 && self.stride_y == 2 && self.stride_x == 2;
        all && self.pad_x == 0 && 2 * self.out_w <= self.in_w
    }

    /// Words of rows `first..end` of bytes, `width` pixels and `row` words each, counted from row `origin`.
    fn rows_span(
        &self,
        d: &Bounds,
        (field, address, row): (&'static str, u32, u32),
        width: u32,
        origin: i64,
        (first, end): (u32, u32),
    ) -> Result<Span, BadCall> {
        let words = times(width, self.channels).div_ceil(4);
        if words > row {
            return Err(BadCall::value(field, row));
        }
        if first >= end {
            return d.span(field, address, 0);
        }
        let word = |r: u32| row_offset(r.into(), origin, row);
        d.part(field, address, word(first), word(end - 1) + i64::from(words))
    }
}

impl Kernel for Pool8 {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_zero("zero", self.zero)?;
        check_window(self.mode, (&self.y_axis(), self.oy_end()), (&self.x_axis(), self.out_w))?;
        if self.is_empty() {
            return Ok(());
        }
        let d = Bounds { words: dtcm_words };
        let rows = (self.oy0, self.oy_end());
        let y = self.rows_span(&d, ("y", self.y, self.y_row), self.out_w, self.oy0.into(), rows)?;
        let needed = self.y_axis().needed(rows.0, rows.1).map_or((0, 0), |(low, high)| (low, high + 1));
        y.apart_from(&[self.rows_span(&d, ("x", self.x, self.x_row), self.in_w, self.iy0.into(), needed)?])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        if self.is_empty() {
            return;
        }
        let dtcm = dtcm::cells(dtcm);
        let (y_axis, x_axis) = (self.y_axis(), self.x_axis());
        let channels = self.channels as usize;
        for oy in self.oy0..self.oy_end() {
            let (iy_low, iy_end) = window(&y_axis, oy);
            let out = &dtcm[self.y as usize / 4 + (oy - self.oy0) as usize * self.y_row as usize..];
            #[cfg(target_arch = "arm")]
            if self.is_two_by_two() && iy_end - iy_low == 2 {
                let row = |iy: u32| {
                    let offset = (iy.wrapping_sub(self.iy0 as u32)).wrapping_mul(self.x_row) as usize;
                    &dtcm[(self.x as usize / 4).wrapping_add(offset)..]
                };
                let rows = [row(iy_low), row(iy_low + 1)];
                crate::arm::int8::pool_two_by_two(self.mode == 0, rows, out, self.out_w, self.channels);
                continue;
            }
            #[cfg(target_arch = "arm")]
            let mut reciprocal = (0, 0);
            for ox in 0..self.out_w {
                let (ix_low, ix_end) = window(&x_axis, ox);
                let cells = iy_end.saturating_sub(iy_low) * ix_end.saturating_sub(ix_low);
                #[cfg(target_arch = "arm")]
                if cells > 0 && (self.mode == 0 || cells <= crate::arm::int8::AVERAGE_CELLS_MAX) {
                    use crate::arm::int8::{Window, pool_window};
                    if self.mode != 0 && reciprocal.0 != cells {
                        reciprocal = (cells, u32::MAX / (2 * cells) + 1);
                    }
                    let row = iy_low.wrapping_sub(self.iy0 as u32).wrapping_mul(4 * self.x_row);
                    let cell = self.x.wrapping_add(row).wrapping_add(ix_low * self.channels);
                    let result = self.y + 4 * (oy - self.oy0) * self.y_row + ox * self.channels;
                    let window = Window {
                        channels: self.channels,
                        columns: ix_end - ix_low,
                        row_bytes: 4 * self.x_row,
                        rows: iy_end - iy_low,
                        cells,
                        reciprocal: reciprocal.1,
                    };
                    pool_window(dtcm, cell, result, &window);
                    continue;
                }
                for c in 0..channels {
                    let mut result = 0;
                    for iy in iy_low..iy_end {
                        let row = (i64::from(iy) - i64::from(self.iy0)) * i64::from(self.x_row);
                        let x = &dtcm[(i64::from(self.x / 4) + row) as usize..];
                        for ix in ix_low..ix_end {
                            let q = byte(x, ix as usize * channels + c);
                            result = if self.mode == 0 { result.max(q) } else { result + q };
                        }
                    }
                    let result = match (cells, self.mode) {
                        (0, _) => self.zero,
                        (_, 0) => result,
                        _ => (2 * result + cells) / (2 * cells),
                    };
                    set_byte(out, ox as usize * channels + c, result);
                }
            }
        }
    }

    fn cycles(&self) -> u64 {
        if self.is_empty() { crate::cost::CALL } else { cost::pool8(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::test_data::Mantissas;
    use proptest::prelude::*;

    proptest! {
        /// Against the definition in terms of real numbers, cell by cell.
        #[test]
        fn windows_agree(
            (in_h, in_w, channels, mode) in (1u32..8, 1u32..8, 1u32..6, 0u32..2),
            (kh, kw, stride_y, stride_x, pad_y, pad_x) in (1u32..4, 1u32..4, 1u32..4, 1u32..4, 0i32..3, 0i32..3),
            (oy0, rows, zero, seed) in (0u32..3, 0u32..6, 0u32..256, any::<u64>()),
        ) {
            let outputs = |input: u32, k: u32, stride: u32, pad: i32| (input + 2 * pad as u32).saturating_sub(k) / stride + 1;
            let (out_h, out_w) = (outputs(in_h, kh, stride_y, pad_y), outputs(in_w, kw, stride_x, pad_x));
            let (x_row, y_row) = ((in_w * channels).div_ceil(4), (out_w * channels).div_ceil(4));
            let mut data = Mantissas::new(seed);
            let mut dtcm: Vec<u32> = (0..1000).map(|_| data.next() as u32).collect();
            let before = dtcm.clone();
            let call = Pool8 {
                mode, x: 0, x_row, iy0: 0, in_h, in_w, channels, y: 4 * 500, y_row, oy0, rows, out_h, out_w, kh, kw, stride_y, stride_x, pad_y,
                pad_x, zero,
            };
            call.check(1000).unwrap();
            call.run(&mut dtcm);
            let q = |words: &[u32], base: usize, i: u32| words[base + i as usize / 4].to_le_bytes()[i as usize % 4];
            for oy in oy0..(oy0 + rows).min(out_h) {
                for ox in 0..out_w {
                    for c in 0..channels {
                        let mut cells = Vec::new();
                        for iy in 0..in_h as i32 {
                            for ix in 0..in_w as i32 {
                                let (ky, kx) = (iy + pad_y - (oy * stride_y) as i32, ix + pad_x - (ox * stride_x) as i32);
                                if (0..kh as i32).contains(&ky) && (0..kw as i32).contains(&kx) {
                                    let at = iy as u32 * x_row * 4 + ix as u32 * channels + c;
                                    cells.push(f64::from(q(&before, 0, at)));
                                }
                            }
                        }
                        let expected = match (cells.len(), mode) {
                            (0, _) => f64::from(zero),
                            (_, 0) => cells.iter().copied().fold(0.0, f64::max),
                            (n, _) => (cells.iter().sum::<f64>() / n as f64 + 0.5).floor(),
                        };
                        let at = (oy - oy0) * y_row * 4 + ox * channels + c;
                        prop_assert_eq!(f64::from(q(&dtcm, 500, at)), expected);
                    }
                }
            }
            call.cycles();
        }
    }
}
