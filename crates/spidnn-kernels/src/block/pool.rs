//! Pooling over windows, and its gradient.

use core::cell::Cell;

use super::conv::{Picture, check_axis};
use super::geometry::Axis;
use super::round::{CanonicalBits, add};
use crate::call::{Pool, PoolGrad};
use crate::dtcm::{self, BadCall, Bounds, times};
use crate::{Kernel, cost, num};

/// Numbers in the order of integers: both zeros are equal, NaNs beyond the infinity of their sign.
#[cfg(not(target_arch = "arm"))]
fn key(bits: u32) -> i32 {
    if bits >> 31 == 1 { 0x8000_0000u32.wrapping_sub(bits) as i32 } else { bits as i32 }
}

fn divide(bits: u32, count: f32) -> u32 {
    num::div(f32::from_bits(bits), count).to_bits_canonical()
}

/// Inputs `low..end` of the window of output `o`.
#[cfg_attr(target_arch = "arm", inline(never))]
pub(crate) fn window(axis: &Axis, o: u32) -> (u32, u32) {
    let start = o.wrapping_mul(axis.stride) as i32 - axis.pad;
    let clamp = |i: i32| i.max(0).min(axis.input as i32) as u32;
    (clamp(start), clamp(start + axis.kernel as i32))
}

/// Where a row of pixels is in DTCM.
struct Rows<'a> {
    dtcm: &'a [Cell<u32>],
    base: u32,
    first: i32,
    width: u32,
    channels: u32,
}

impl<'a> Rows<'a> {
    fn new(dtcm: &'a [Cell<u32>], address: u32, first: i32, width: u32, channels: u32) -> Self {
        Rows { dtcm, base: address / 4, first, width, channels }
    }
    /// The first word of a pixel.
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn start(&self, y: u32, x: u32) -> u32 {
        // Of a pixel that is there what wraps comes back.
        let row = y.wrapping_sub(self.first as u32).wrapping_mul(self.width);
        self.base.wrapping_add(row.wrapping_add(x).wrapping_mul(self.channels))
    }
    fn pixel(&self, y: u32, x: u32) -> &'a [Cell<u32>] {
        dtcm::part(self.dtcm, self.start(y, x) as usize, self.channels as usize)
    }
}

impl Pool {
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn y_axis(&self) -> Axis {
        Axis { input: self.in_h, kernel: self.kh, stride: self.stride_y, dilation: 1, pad: self.pad_y, up: 1 }
    }
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn x_axis(&self) -> Axis {
        Axis { input: self.in_w, kernel: self.kw, stride: self.stride_x, dilation: 1, pad: self.pad_x, up: 1 }
    }
    /// The output rows: `oy0 .. oy_end`.
    #[cfg_attr(target_arch = "arm", inline(never))]
    pub(crate) fn oy_end(&self) -> u32 {
        self.oy0.saturating_add(self.rows).min(self.out_h)
    }
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn is_empty(&self) -> bool {
        self.oy_end() <= self.oy0 || self.out_w == 0 || self.channels == 0
    }
}

/// Largest extent of a window: keeps the work of an accepted call bounded.
const KERNEL_MAX: u32 = 1 << 12;

/// Whether the code, extents and steps of a pooling window are sound.
pub(crate) fn check_window(mode: u32, (y, y_end): (&Axis, u32), (x, x_end): (&Axis, u32)) -> Result<(), BadCall> {
    dtcm::below("mode", mode, 2)?;
    dtcm::below("kh", y.kernel, KERNEL_MAX)?;
    dtcm::below("kw", x.kernel, KERNEL_MAX)?;
    check_axis(["stride_y", "dilation_y", "up_y"], y, y_end)?;
    check_axis(["stride_x", "dilation_x", "up_x"], x, x_end)
}

impl Kernel for Pool {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_window(self.mode, (&self.y_axis(), self.oy_end()), (&self.x_axis(), self.out_w))?;
        if self.is_empty() {
            return Ok(());
        }
        let d = Bounds { words: dtcm_words };
        let pixels = times(self.oy_end() - self.oy0, self.out_w);
        let y = d.span("y", self.y, times(pixels, self.channels))?;
        let picture = Picture { x: self.x, iy0: self.iy0, in_w: self.in_w, in_c: self.channels };
        y.apart_from(&[picture.span(&d, &self.y_axis(), self.oy0, self.oy_end())?])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        if self.is_empty() {
            return;
        }
        let dtcm = dtcm::cells(dtcm);
        let x = Rows::new(dtcm, self.x, self.iy0, self.in_w, self.channels);
        let y = Rows::new(dtcm, self.y, self.oy0 as i32, self.out_w, self.channels);
        let (y_axis, x_axis) = (self.y_axis(), self.x_axis());
        for oy in self.oy0..self.oy_end() {
            let (iy_low, iy_end) = window(&y_axis, oy);
            for ox in 0..self.out_w {
                let (ix_low, ix_end) = window(&x_axis, ox);
                let out = y.pixel(oy, ox);
                let mut cells = 0;
                for iy in iy_low..iy_end {
                    let mut at = x.start(iy, ix_low);
                    for _ in ix_low..ix_end {
                        let pixel = dtcm::part(dtcm, at as usize, self.channels as usize);
                        at += self.channels;
                        #[cfg(target_arch = "arm")]
                        {
                            use crate::arm::{copy_cells, functions as f, pool_max, zip};
                            match (cells, self.mode) {
                                (0, _) => copy_cells(pixel, out),
                                (_, 0) => pool_max(out, pixel),
                                _ => zip(f::add, out, pixel, out),
                            }
                        }
                        #[cfg(not(target_arch = "arm"))]
                        for (o, v) in out.iter().zip(pixel) {
                            let (best, v) = (o.get(), v.get());
                            o.set(match (cells, self.mode) {
                                (0, _) => v,
                                (_, 0) if key(v) > key(best) => v,
                                (_, 0) => best,
                                _ => num::add(f32::from_bits(best), f32::from_bits(v)).to_bits(),
                            });
                        }
                        cells += 1;
                    }
                }
                if cells == 0 {
                    out.iter().for_each(|o| o.set(0));
                } else if self.mode == 1 {
                    #[cfg(target_arch = "arm")]
                    crate::arm::map(crate::arm::functions::div, out, num::from_i64(cells.into()));
                    #[cfg(not(target_arch = "arm"))]
                    out.iter().for_each(|o| o.set(divide(o.get(), cells as f32)));
                }
            }
        }
    }

    fn cycles(&self) -> u64 {
        if self.is_empty() { cost::CALL } else { cost::pool(self, &self.y_axis(), &self.x_axis()) }
    }
}

impl PoolGrad {
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn y_axis(&self) -> Axis {
        Axis { input: self.in_h, kernel: self.kh, stride: self.stride_y, dilation: 1, pad: self.pad_y, up: 1 }
    }
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn x_axis(&self) -> Axis {
        Axis { input: self.in_w, kernel: self.kw, stride: self.stride_x, dilation: 1, pad: self.pad_x, up: 1 }
    }
    /// The input rows: `iy0 .. iy_end`.
    #[cfg_attr(target_arch = "arm", inline(never))]
    pub(crate) fn iy_end(&self) -> u32 {
        self.iy0.saturating_add(self.rows).min(self.in_h)
    }
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn is_empty(&self) -> bool {
        self.iy_end() <= self.iy0 || self.in_w == 0 || self.channels == 0
    }
    /// Output rows `first..end` whose windows hold any of the input rows.
    pub(crate) fn windows(&self) -> (u32, u32) {
        if self.kh == 0 || self.out_w == 0 {
            return (0, 0);
        }
        // Far from overflow: see `Axis::is_small`.
        let pad = self.pad_y;
        let first = self.iy0 as i32 + pad - self.kh as i32 + 1;
        let last = self.iy_end() as i32 - 1 + pad;
        if last < 0 {
            return (0, 0);
        }
        let first = (first.max(0) as u32).div_ceil(self.stride_y);
        let end = (last as u32 / self.stride_y + 1).min(self.out_h);
        if first >= end { (0, 0) } else { (first, end) }
    }
}

impl Kernel for PoolGrad {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_window(self.mode, (&self.y_axis(), self.out_h), (&self.x_axis(), self.out_w))?;
        if self.is_empty() {
            return Ok(());
        }
        let d = Bounds { words: dtcm_words };
        let pixels = times(self.iy_end() - self.iy0, self.in_w);
        let dx = d.span("dx", self.dx, times(pixels, self.channels))?;
        let (first, end) = self.windows();
        if first == end {
            return Ok(());
        }
        let rows = |field, address| {
            let word = |y: u32| dtcm::row_offset(y.into(), self.oy0.into(), times(self.out_w, self.channels));
            d.part(field, address, word(first), word(end))
        };
        dx.apart_from(&[rows("dy", self.dy)?])?;
        if self.mode == 0 {
            let picture = Picture { x: self.x, iy0: self.x_iy0, in_w: self.in_w, in_c: self.channels };
            dx.apart_from(&[rows("y", self.y)?, picture.span(&d, &self.y_axis(), first, end)?])?;
        }
        Ok(())
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        if self.is_empty() {
            return;
        }
        let dtcm = dtcm::cells(dtcm);
        let iy_end = self.iy_end();
        let words = (iy_end - self.iy0) as usize * self.in_w as usize * self.channels as usize;
        dtcm::words(dtcm, self.dx, words).iter().for_each(|dx| dx.set(0));
        let dx = Rows::new(dtcm, self.dx, self.iy0 as i32, self.in_w, self.channels);
        let dy = Rows::new(dtcm, self.dy, self.oy0, self.out_w, self.channels);
        let y = Rows::new(dtcm, if self.mode == 0 { self.y } else { self.dy }, self.oy0, self.out_w, self.channels);
        let x = Rows::new(dtcm, self.x, self.x_iy0, self.in_w, self.channels);
        let (y_axis, x_axis) = (self.y_axis(), self.x_axis());
        let (first, end) = self.windows();
        let ours = |iy: u32| iy >= self.iy0 && iy < iy_end;
        let (channels, row) = (self.channels, self.in_w * self.channels);
        for oy in first..end {
            let (iy_low, iy_high) = window(&y_axis, oy);
            for ox in 0..self.out_w {
                let (ix_low, ix_high) = window(&x_axis, ox);
                let (rows, columns) = (iy_high - iy_low, ix_high - ix_low);
                let (dy, y) = (dy.pixel(oy, ox), y.pixel(oy, ox));
                // Words of the window's first cell; one that another core has may lie anywhere, but is not touched.
                let (x, dx) = (x.start(iy_low, ix_low), dx.start(iy_low, ix_low));
                let cells = if self.mode == 1 { num::from_i64((rows * columns).into()) } else { 0.0 };
                for c in 0..channels {
                    let give = |line: u32, cell: u32, share: u32| {
                        let dx = dx.wrapping_add(line.wrapping_mul(row)).wrapping_add(cell * channels + c);
                        let dx = dtcm::word(dtcm, dx as usize);
                        dx.set(add(dx.get(), share));
                    };
                    let share = dtcm::word(dy, c as usize).get();
                    if self.mode == 1 {
                        let share = divide(share, cells);
                        for line in (0..rows).filter(|&line| ours(iy_low + line)) {
                            (0..columns).for_each(|cell| give(line, cell, share));
                        }
                        continue;
                    }
                    // To the first that has the maximum.
                    let most = dtcm::word(y, c as usize).get();
                    'cells: for line in 0..rows {
                        let mut at = x.wrapping_add(line.wrapping_mul(row)).wrapping_add(c);
                        for cell in 0..columns {
                            if dtcm::word(dtcm, at as usize).get() == most {
                                if ours(iy_low + line) {
                                    give(line, cell, share);
                                }
                                break 'cells;
                            }
                            at += channels;
                        }
                    }
                }
            }
        }
    }

    fn cycles(&self) -> u64 {
        if self.is_empty() { cost::CALL } else { cost::pool_grad(self, &self.y_axis(), &self.x_axis(), self.windows()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::test_data::Mantissas;
    use proptest::prelude::*;

    const WORDS: usize = 4000;

    proptest! {
        /// Both directions against the definition, cell by cell.
        #[test]
        fn windows_agree(
            (in_h, in_w, channels, mode) in (1u32..8, 1u32..8, 1u32..5, 0u32..2),
            (kh, kw, stride_y, stride_x, pad_y, pad_x) in (1u32..4, 1u32..4, 1u32..4, 1u32..4, 0i32..3, 0i32..3),
            (oy0, rows, iy0, in_rows, seed) in (0u32..3, 0u32..6, 0u32..4, 0u32..8, any::<u64>()),
        ) {
            let outputs = |input: u32, k: u32, stride: u32, pad: i32| (input + 2 * pad as u32).saturating_sub(k) / stride + 1;
            let (out_h, out_w) = (outputs(in_h, kh, stride_y, pad_y), outputs(in_w, kw, stride_x, pad_x));
            let mut data = Mantissas::new(seed);
            // Few values, so that maxima are shared.
            let mut dtcm: Vec<u32> = (0..WORDS).map(|_| [data.number(true), 0x3F80_0000, 0x8000_0000, 0][data.next() as usize % 4]).collect();
            let pool = Pool {
                mode, x: 0, iy0: 0, in_h, in_w, channels, y: 4 * 1000, oy0, rows, out_h, out_w, kh, kw, stride_y, stride_x, pad_y, pad_x,
            };
            let cells_of = |oy: u32, ox: u32| {
                let mut cells = Vec::new();
                for iy in 0..in_h as i32 {
                    for ix in 0..in_w as i32 {
                        let (ky, kx) = (iy + pad_y - (oy * stride_y) as i32, ix + pad_x - (ox * stride_x) as i32);
                        if (0..kh as i32).contains(&ky) && (0..kw as i32).contains(&kx) {
                            cells.push((iy as u32, ix as u32));
                        }
                    }
                }
                cells
            };
            let before = dtcm.clone();
            let x = |(iy, ix): (u32, u32), c: u32| f32::from_bits(before[((iy * in_w + ix) * channels + c) as usize]);
            pool.check(WORDS).unwrap();
            pool.run(&mut dtcm);
            for oy in oy0..(oy0 + rows).min(out_h) {
                for ox in 0..out_w {
                    for c in 0..channels {
                        let found = dtcm[1000 + (((oy - oy0) * out_w + ox) * channels + c) as usize];
                        let cells = cells_of(oy, ox);
                        let values: Vec<f32> = cells.iter().map(|&cell| x(cell, c)).collect();
                        if mode == 0 && values.iter().any(|v| v.is_nan()) {
                            continue; // the order of NaNs has a test of its own
                        }
                        let expected = match (values.split_first(), mode) {
                            (None, _) => 0.0,
                            (Some((&first, rest)), 0) => rest.iter().fold(first, |m, &v| if v > m { v } else { m }),
                            (Some((&first, rest)), _) => rest.iter().fold(first, |s, &v| s + v) / values.len() as f32,
                        };
                        prop_assert_eq!(found, expected.to_bits_canonical());
                    }
                }
            }

            // All outputs, then the gradient of some input rows.
            let whole = Pool { oy0: 0, rows: out_h, ..pool };
            let mut dtcm = before.clone();
            whole.run(&mut dtcm);
            let grad = PoolGrad {
                mode, x: 0, x_iy0: 0, in_h, in_w, channels, y: 4 * 1000, dy: 4 * 2000, oy0: 0, out_h, out_w, dx: 4 * 3000, iy0, rows: in_rows,
                kh, kw, stride_y, stride_x, pad_y, pad_x,
            };
            let outs = dtcm.clone();
            grad.check(WORDS).unwrap();
            grad.run(&mut dtcm);
            for iy in iy0..(iy0 + in_rows).min(in_h) {
                for ix in 0..in_w {
                    for c in 0..channels {
                        let mut expected = 0f32;
                        for oy in 0..out_h {
                            for ox in 0..out_w {
                                let cells = cells_of(oy, ox);
                                let at = ((oy * out_w + ox) * channels + c) as usize;
                                let (y, dy) = (outs[1000 + at], f32::from_bits(before[2000 + at]));
                                let hit = match mode {
                                    0 => cells.iter().find(|&&cell| x(cell, c).to_bits() == y) == Some(&(iy, ix)),
                                    _ => cells.contains(&(iy, ix)),
                                };
                                if hit {
                                    expected += if mode == 0 { dy } else { dy / cells.len() as f32 };
                                }
                            }
                        }
                        let found = dtcm[3000 + (((iy - iy0) * in_w + ix) * channels + c) as usize];
                        prop_assert_eq!(found, expected.to_bits_canonical(), "cell {} {} {}", iy, ix, c);
                    }
                }
            }
            pool.cycles();
            grad.cycles();
        }
    }

    #[test]
    fn nans_are_beyond_infinities_and_zeros_are_equal() {
        let bits = [0xFFC0_0000, 0xFF80_0000, 0xBF80_0000, 0x8000_0001, 0, 1, 0x3F80_0000, 0x7F80_0000, 0x7FC0_0000];
        assert!(bits.is_sorted_by_key(|&b| key(b)));
        assert_eq!(key(0), key(0x8000_0000));
    }
}
