//! Convolution, forward and backward, and the gradient of its weights.

use core::cell::Cell;

use super::geometry::Axis;
use super::round::{self, Operands};
use crate::call::{BLOCK_TERMS_MAX, Conv, ConvWgrad};
use crate::dtcm::{self, BadCall, Bounds, Span, times};
use crate::{Kernel, cost};

/// Largest stride, dilation and `up`; keeps positions far from overflow.
const STEP_MAX: u32 = 1 << 16;

/// Input of a window kernel in DTCM: rows from `iy0` on.
#[derive(Clone, Copy)]
pub struct Picture {
    pub x: u32,
    pub iy0: i32,
    pub in_w: u32,
    pub in_c: u32,
}

impl Picture {
    fn row_words(&self) -> u32 {
        times(self.in_w, self.in_c)
    }

    /// The words of the rows that outputs `first..end` need.
    pub fn span(&self, d: &Bounds, y: &Axis, first: u32, end: u32) -> Result<Span, BadCall> {
        let Some((low, high)) = y.needed(first, end) else { return d.span("x", self.x, 0) };
        let words = |row: u32| dtcm::row_offset(row.into(), self.iy0.into(), self.row_words());
        d.part("x", self.x, words(low), words(high + 1))
    }
}

/// Steps along an axis are positive and not absurd, and all positions of outputs below `end` stay far from overflow.
#[cfg_attr(target_arch = "arm", inline(never))]
pub fn check_axis(names: [&'static str; 3], axis: &Axis, end: u32) -> Result<(), BadCall> {
    for (field, value) in names.into_iter().zip([axis.stride, axis.dilation, axis.up]) {
        if value == 0 || value > STEP_MAX {
            return Err(BadCall::value(field, value));
        }
    }
    if axis.is_small(end) { Ok(()) } else { Err(BadCall::value(names[0], axis.stride)) }
}

/// A picture with every input that any term needs, zeros where there is none: all outputs alike.
#[cfg(any(test, feature = "std"))]
struct Window<'a> {
    cells: &'a [Cell<u32>],
    /// Row and column of the first word.
    y0: i64,
    x0: i64,
    /// Words of a row.
    row: usize,
    /// Words of a column.
    column: usize,
}

#[cfg(any(test, feature = "std"))]
impl Window<'_> {
    fn at(&self, iy: i64, ix: i64) -> usize {
        (iy - self.y0) as usize * self.row + (ix - self.x0) as usize * self.column
    }
}

/// Inputs of an axis from the smallest to the largest that any tap meets, inside the picture or not.
#[cfg(any(test, feature = "std"))]
fn hull(axis: &Axis, first: u32, end: u32, skip_empty_taps: bool) -> Option<(i64, i64)> {
    let mut range: Option<(i64, i64)> = None;
    for o in first..end.min(first.saturating_add(axis.up)) {
        let turns = i64::from((end - 1 - o) / axis.up);
        for k in 0..axis.kernel {
            let Some(low) = axis.unbounded(o, k).map(i64::from) else { continue };
            let high = low + turns * i64::from(axis.stride);
            if skip_empty_taps && (high < 0 || low >= i64::from(axis.input)) {
                continue;
            }
            range = Some(range.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
        }
    }
    range
}

/// Words of a window that are worth a copy.
#[cfg(any(test, feature = "std"))]
const WINDOW_WORDS_MAX: i64 = 1 << 18;

/// Calls `f` with the window of the picture over rows `y` and columns `x` (both inclusive); `None`: too large.
#[cfg(any(test, feature = "std"))]
fn with_window<R>(
    dtcm: &[Cell<u32>],
    picture: &Picture,
    held: Option<(u32, u32)>,
    y: (i64, i64),
    x: (i64, i64),
    f: impl FnOnce(Window) -> R,
) -> Option<R> {
    std::thread_local! { static SCRATCH: core::cell::RefCell<Vec<u32>> = const { core::cell::RefCell::new(Vec::new()) }; }
    let channels = picture.in_c as usize;
    let in_w = i64::from(picture.in_w);
    // First word of an input row that is held.
    let row_start = |iy: i64| {
        (picture.x as usize / 4)
            .wrapping_add_signed(((iy - i64::from(picture.iy0)) * i64::from(picture.row_words())) as isize)
    };
    if x.0 >= 0 && x.1 < in_w && held.is_some_and(|(low, high)| y.0 >= i64::from(low) && y.1 <= i64::from(high)) {
        let row = picture.row_words() as usize;
        let (start, end) = (row_start(y.0), row_start(y.1 + 1));
        return Some(f(Window { cells: &dtcm[start..end], y0: y.0, x0: 0, row, column: channels }));
    }
    let (rows, columns) = (y.1 - y.0 + 1, x.1 - x.0 + 1);
    if rows.saturating_mul(columns).saturating_mul(channels.max(1) as i64) > WINDOW_WORDS_MAX {
        return None;
    }
    let row = columns as usize * channels;
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        scratch.resize(rows as usize * row, 0);
        if let Some((low, high)) = held {
            let (from, to) = (x.0.max(0), (x.1 + 1).min(in_w));
            for iy in y.0.max(low.into())..=y.1.min(high.into()) {
                if from >= to {
                    break;
                }
                let source = &dtcm[row_start(iy) + from as usize * channels..][..(to - from) as usize * channels];
                let at = (iy - y.0) as usize * row + (from - x.0) as usize * channels;
                for (d, s) in scratch[at..][..source.len()].iter_mut().zip(source) {
                    *d = s.get();
                }
            }
        }
        Some(f(Window { cells: dtcm::cells(scratch), y0: y.0, x0: x.0, row, column: channels }))
    })
}

impl Conv {
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn y_axis(&self) -> Axis {
        Axis {
            input: self.in_h,
            kernel: self.kh,
            stride: self.stride_y,
            dilation: self.dilation_y,
            pad: self.pad_y,
            up: self.up_y,
        }
    }
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn x_axis(&self) -> Axis {
        Axis {
            input: self.in_w,
            kernel: self.kw,
            stride: self.stride_x,
            dilation: self.dilation_x,
            pad: self.pad_x,
            up: self.up_x,
        }
    }
    fn picture(&self) -> Picture {
        Picture { x: self.x, iy0: self.iy0, in_w: self.in_w, in_c: self.in_c }
    }
    /// The output rows: `oy0 .. oy_end`.
    #[cfg_attr(target_arch = "arm", inline(never))]
    pub(crate) fn oy_end(&self) -> u32 {
        self.oy0.saturating_add(self.rows).min(self.out_h)
    }
    #[cfg_attr(target_arch = "arm", inline(never))]
    pub(super) fn is_empty(&self) -> bool {
        self.oy_end() <= self.oy0 || self.out_w == 0 || self.co_tile == 0
    }

    /// The definition, one integer operation after the other.
    #[cfg_attr(any(feature = "std", target_arch = "arm"), allow(dead_code))]
    fn run_scalar(&self, dtcm: &[Cell<u32>], operands: Operands) {
        let word = |base: u32, offset: i64| &dtcm[(i64::from(base / 4) + offset) as usize];
        let (y_axis, x_axis) = (self.y_axis(), self.x_axis());
        let (in_w, in_c, stride) = (i64::from(self.in_w), i64::from(self.in_c), i64::from(self.w_stride));
        let x_exp = word(self.x_exp, 0).get() as i32;
        let mut at = 0;
        for oy in self.oy0..self.oy_end() {
            for ox in 0..self.out_w {
                for co in 0..self.co_tile {
                    let channel0 = (self.co0 + co) / self.co_group * self.ci_group;
                    let mut sum = 0i64;
                    for ky in 0..self.kh {
                        let Some(iy) = y_axis.input_of(oy, ky) else { continue };
                        for kx in 0..self.kw {
                            let Some(ix) = x_axis.input_of(ox, kx) else { continue };
                            let x = ((i64::from(iy) - i64::from(self.iy0)) * in_w + i64::from(ix)) * in_c
                                + i64::from(channel0);
                            let w = i64::from((ky * self.kw + kx) * self.ci_group) * stride + i64::from(co);
                            for ci in 0..i64::from(self.ci_group) {
                                let (x, w) = (word(self.x, x + ci).get(), word(self.w, w + ci * stride).get());
                                sum = sum.wrapping_add(operands.multiply(x, w));
                            }
                        }
                    }
                    let value =
                        round::product(sum, operands.exponent(x_exp), word(self.w_exps, co.into()).get() as i32);
                    let y = word(self.y, at);
                    y.set(if self.accumulate != 0 { round::add(y.get(), value) } else { value });
                    at += 1;
                }
            }
        }
    }

    /// A row of products for each pixel, over the taps that are inside the picture: a grid, since these lie at constant steps.
    #[cfg(target_arch = "arm")]
    fn run_arm(&self, dtcm: &[Cell<u32>], operands: Operands) {
        use crate::arm;
        let (y_axis, x_axis) = (self.y_axis(), self.x_axis());
        let pixel_bytes = 4 * self.in_c;
        let row_bytes = self.in_w * pixel_bytes;
        let one_group = self.co0 / self.co_group == (self.co0 + self.co_tile - 1) / self.co_group;
        let first_input = 4 * self.ci_group * (self.co0 / self.co_group);
        let mut y = arm::address(dtcm, self.y);
        for oy in self.oy0..self.oy_end() {
            let rows = y_axis.taps(oy);
            let start = arm::address(dtcm, self.x)
                .wrapping_add((rows.input.wrapping_sub(self.iy0) as u32).wrapping_mul(row_bytes));
            let mut ox = 0;
            while ox < self.out_w {
                let taps = x_axis.taps(ox);
                let mut pixels = self.pixels(dtcm, &rows, &taps);
                pixels.rows = self.alike(&x_axis, ox, &taps);
                pixels.a = start.wrapping_add((taps.input as u32).wrapping_mul(pixel_bytes));
                pixels.c = y;
                ox += pixels.rows;
                y += pixels.rows * pixels.c_next;
                if one_group {
                    pixels.a = pixels.a.wrapping_add(first_input);
                    // SAFETY: the call was checked.
                    unsafe { pixels.run(operands) }
                } else {
                    self.groups(pixels, operands);
                }
            }
        }
    }

    /// How many outputs from `ox` on meet the same taps, whose inputs lie at constant steps: where all taps are inside, more than one.
    #[cfg(target_arch = "arm")]
    #[inline(never)]
    fn alike(&self, x_axis: &Axis, ox: u32, taps: &super::geometry::Taps) -> u32 {
        let last = x_axis.unbounded(ox, self.kw - 1).unwrap_or(0);
        let room = self.in_w as i32 - 1 - last;
        if self.up_x != 1 || taps.count != self.kw || room < 0 {
            return 1;
        }
        let steps = if self.stride_x == 1 { room as u32 } else { room as u32 / self.stride_x };
        (1 + steps).min(self.out_w - ox)
    }

    /// Pixels that meet these taps; their number, left operand and results are to be set.
    #[cfg(target_arch = "arm")]
    #[inline(never)]
    fn pixels(
        &self,
        dtcm: &[Cell<u32>],
        rows: &super::geometry::Taps,
        columns: &super::geometry::Taps,
    ) -> crate::arm::ProductRows {
        use crate::arm;
        let row_bytes = 4 * self.in_w * self.in_c;
        let tap_bytes = 4 * self.ci_group * self.w_stride;
        // Neighbouring taps of a row whose inputs and weights lie without gaps are one segment.
        let together = columns.input_step == 1 && columns.tap_step == 1 && self.ci_group == self.in_c;
        let (x_count, terms) =
            if together { (1, columns.count * self.ci_group) } else { (columns.count, self.ci_group) };
        // From the start of a segment to the next; `a_x` and `b_x` start behind it.
        let x = (columns.input_step as u32).wrapping_mul(4 * self.in_c);
        let w = columns.tap_step * tap_bytes;
        let a_y = (rows.input_step as u32).wrapping_mul(row_bytes);
        let b_y = rows.tap_step * self.kw * tap_bytes;
        let back = x_count.wrapping_sub(1);
        arm::ProductRows {
            a_step: 4,
            b_step: 4 * self.w_stride,
            terms,
            segments: if columns.count == 0 { 0 } else { x_count * rows.count },
            x_count,
            a_x: x.wrapping_sub(4 * terms),
            b_x: w.wrapping_sub(4 * terms * self.w_stride),
            a_y: a_y.wrapping_sub(x.wrapping_mul(back)).wrapping_sub(4 * terms),
            b_y: b_y.wrapping_sub(w.wrapping_mul(back)).wrapping_sub(4 * terms * self.w_stride),
            a_exp: 0,
            accumulate: self.accumulate,
            b_exps_step: 4,
            a: 0,
            c: 0,
            b_exps: arm::address(dtcm, self.w_exps),
            columns: self.co_tile,
            b: arm::address(dtcm, self.w) + (rows.tap * self.kw + columns.tap) * tap_bytes,
            rows: 1,
            a_next: 4 * self.in_c * self.stride_x,
            c_next: 4 * self.co_tile,
            a_exps: arm::address(dtcm, self.x_exp),
            a_exps_step: 0,
        }
    }

    /// The channels of pixels, group by group.
    #[cfg(target_arch = "arm")]
    #[inline(never)]
    fn groups(&self, pixels: crate::arm::ProductRows, operands: Operands) {
        let mut row = pixels;
        let mut group = self.co0 / self.co_group;
        let mut left = self.co_tile;
        // The first group may have begun before the tile.
        let mut columns = self.co_group - self.co0 % self.co_group;
        while left > 0 {
            columns = columns.min(left);
            row.a = pixels.a.wrapping_add(4 * group * self.ci_group);
            row.c = pixels.c + 4 * (self.co_tile - left);
            (row.columns, row.rows, row.a_exps) = (columns, pixels.rows, pixels.a_exps);
            // SAFETY: the call was checked.
            unsafe { row.run(operands) }
            left -= columns;
            row.b += 4 * columns;
            row.b_exps += 4 * columns;
            (group, columns) = (group + 1, self.co_group);
        }
    }

    /// Products over a window with zeros around the picture. False: the window is too large.
    ///
    /// Outputs of one residue modulo `up` in both directions have the same taps at the same distances; rows
    /// near the border are taken by themselves, without the taps that lie outside.
    #[cfg(any(test, feature = "std"))]
    fn run_at(&self, dtcm: &[Cell<u32>], operands: Operands, level: super::product::Level) -> bool {
        use super::product::{Product, Row, Segment};
        let (y_axis, x_axis) = (self.y_axis(), self.x_axis());
        let (oy0, oy_end) = (self.oy0, self.oy_end());
        let held = y_axis.needed(oy0, oy_end);
        // Rows outside are left out below, so only columns need zeros around the picture.
        let y_hull = held.map_or((0, -1), |(low, high)| (i64::from(low), i64::from(high)));
        let x_hull = hull(&x_axis, 0, self.out_w, true).unwrap_or((0, -1));
        let from = |address: u32| &dtcm[(address as usize / 4).min(dtcm.len())..];
        let (tile, ci_group, in_w) = (self.co_tile as usize, self.ci_group as usize, i64::from(self.in_w));
        let w_stride = self.w_stride as usize;
        with_window(dtcm, &self.picture(), held, y_hull, x_hull, |window| {
            let mut rows: Vec<Row> = Vec::new();
            let mut segments: Vec<Segment> = Vec::new();
            // Taps of a row of outputs: (ky, input row relative to the first tap's).
            let mut y_taps: Vec<(u32, i64)> = Vec::new();
            let mut x_taps: Vec<(u32, i64)> = Vec::new();
            for residue_x in 0..self.up_x.min(self.out_w) {
                let turns_x = i64::from((self.out_w - 1 - residue_x) / self.up_x);
                x_taps.clear();
                x_taps.extend((0..self.kw).filter_map(|k| {
                    let base = i64::from(x_axis.unbounded(residue_x, k)?);
                    (base + turns_x * i64::from(self.stride_x) >= 0 && base < in_w).then_some((k, base))
                }));
                for residue_y in 0..self.up_y.min(oy_end - oy0) {
                    let mut oy = oy0 + residue_y;
                    while oy < oy_end {
                        // As many rows as have the same taps inside the picture.
                        y_taps.clear();
                        y_taps.extend((0..self.kh).filter_map(|k| y_axis.input_of(oy, k).map(|i| (k, i64::from(i)))));
                        let base_y = y_taps.first().map_or(0, |t| t.1);
                        rows.clear();
                        let first_oy = oy;
                        while oy < oy_end {
                            let alike = oy == first_oy || {
                                let shift = i64::from((oy - first_oy) / self.up_y) * i64::from(self.stride_y);
                                let mut taps =
                                    (0..self.kh).filter_map(|k| y_axis.input_of(oy, k).map(|i| (k, i64::from(i))));
                                y_taps.iter().all(|&(k, i)| taps.next() == Some((k, i + shift)))
                                    && taps.next().is_none()
                            };
                            if !alike {
                                break;
                            }
                            let shift = i64::from((oy - first_oy) / self.up_y) * i64::from(self.stride_y);
                            let a = if y_taps.is_empty() { 0 } else { window.at(base_y + shift, window.x0) };
                            let c = (oy - oy0) as usize * self.out_w as usize;
                            rows.extend((0..=turns_x as usize).map(|turn| Row {
                                a: a + turn * self.stride_x as usize * window.column,
                                c: (c + residue_x as usize + turn * self.up_x as usize) * tile,
                            }));
                            oy = oy.saturating_add(self.up_y);
                        }
                        // Groups of channels in the tile.
                        let mut co = 0;
                        while co < self.co_tile {
                            let group = (self.co0 + co) / self.co_group;
                            let end = ((group + 1).saturating_mul(self.co_group) - self.co0).min(self.co_tile);
                            segments.clear();
                            for &(ky, iy) in &y_taps {
                                for &(kx, ix) in &x_taps {
                                    let a = (iy - base_y) as usize * window.row
                                        + (ix - window.x0) as usize * window.column
                                        + group as usize * ci_group;
                                    let b = (ky * self.kw + kx) as usize * ci_group * w_stride + co as usize;
                                    match segments.last_mut() {
                                        Some(s) if s.a + s.terms == a && s.b + s.terms * w_stride == b => {
                                            s.terms += ci_group
                                        }
                                        _ => segments.push(Segment { a, b, terms: ci_group }),
                                    }
                                }
                            }
                            Product {
                                operands,
                                a: window.cells,
                                a_step: 1,
                                a_exps: dtcm::words(dtcm, self.x_exp, 1),
                                rows: &rows,
                                segments: &segments,
                                b: from(self.w),
                                b_stride: w_stride,
                                b_exps: &from(self.w_exps)[co as usize..],
                                n: (end - co) as usize,
                                c: &from(self.y)[co as usize..],
                                accumulate: self.accumulate != 0,
                            }
                            .run(level);
                            co = end;
                        }
                    }
                }
            }
        })
        .is_some()
    }
}

impl Kernel for Conv {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_axis(["stride_y", "dilation_y", "up_y"], &self.y_axis(), self.oy_end())?;
        check_axis(["stride_x", "dilation_x", "up_x"], &self.x_axis(), self.out_w)?;
        dtcm::nonzero("co_group", self.co_group)?;
        if self.is_empty() {
            return Ok(());
        }
        let terms = times(times(self.kh, self.kw), self.ci_group);
        if terms > BLOCK_TERMS_MAX {
            return Err(BadCall::too_many_terms(terms));
        }
        // No terms at all: ask for a kernel that says so in one way only.
        for (field, value) in [("kh", self.kh), ("kw", self.kw), ("ci_group", self.ci_group)] {
            dtcm::nonzero(field, value)?;
        }
        // The last channel's group must be in the picture.
        let channels = self.co0.saturating_add(self.co_tile);
        let inputs = times(channels.div_ceil(self.co_group), self.ci_group);
        if channels == u32::MAX || inputs > self.in_c {
            return Err(BadCall::value("in_c", self.in_c));
        }
        let d = Bounds { words: dtcm_words };
        let pixels = times(self.oy_end() - self.oy0, self.out_w);
        let y = d.span("y", self.y, times(pixels, self.co_tile))?;
        y.apart_from(&[
            self.picture().span(&d, &self.y_axis(), self.oy0, self.oy_end())?,
            d.span("x_exp", self.x_exp, 1)?,
            d.rows("w", self.w, terms, self.co_tile, self.w_stride)?,
            d.span("w_exps", self.w_exps, self.co_tile)?,
        ])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        if self.is_empty() {
            return;
        }
        self.run_on(dtcm::cells(dtcm), Operands::Mantissas);
    }

    fn cycles(&self) -> u64 {
        self.cycles_of(Operands::Mantissas)
    }
}

impl Conv {
    /// As fast as the host can; for a call that was checked and is not empty.
    pub(super) fn run_on(&self, dtcm: &[Cell<u32>], operands: Operands) {
        #[cfg(any(test, feature = "std"))]
        if self.run_at(dtcm, operands, super::product::Level::detect()) {
            return;
        }
        #[cfg(target_arch = "arm")]
        return self.run_arm(dtcm, operands);
        #[cfg(not(target_arch = "arm"))]
        self.run_scalar(dtcm, operands);
    }

    pub(super) fn cycles_of(&self, operands: Operands) -> u64 {
        if self.is_empty() { cost::CALL } else { cost::conv(self, &self.y_axis(), &self.x_axis(), operands) }
    }
}

impl ConvWgrad {
    pub(super) fn y_axis(&self) -> Axis {
        Axis {
            input: self.in_h,
            kernel: self.kh,
            stride: self.stride_y,
            dilation: self.dilation_y,
            pad: self.pad_y,
            up: 1,
        }
    }
    pub(super) fn x_axis(&self) -> Axis {
        Axis {
            input: self.in_w,
            kernel: self.kw,
            stride: self.stride_x,
            dilation: self.dilation_x,
            pad: self.pad_x,
            up: 1,
        }
    }
    pub(super) fn picture(&self) -> Picture {
        Picture { x: self.x, iy0: self.iy0, in_w: self.in_w, in_c: self.in_c }
    }
    /// The output rows: `oy0 .. oy_end`.
    #[cfg_attr(target_arch = "arm", inline(never))]
    pub(crate) fn oy_end(&self) -> u32 {
        self.oy0.saturating_add(self.rows).min(self.out_h)
    }
    #[cfg_attr(target_arch = "arm", inline(never))]
    pub(super) fn is_empty(&self) -> bool {
        self.kh == 0 || self.kw == 0 || self.ci_tile == 0 || self.co_tile == 0
    }
    /// Output positions: the terms of a sum.
    pub(super) fn pixels(&self) -> u32 {
        times(self.oy_end().saturating_sub(self.oy0), self.out_w)
    }

    /// The definition, one integer operation after the other.
    #[cfg_attr(any(feature = "std", target_arch = "arm"), allow(dead_code))]
    fn run_scalar(&self, dtcm: &[Cell<u32>]) {
        let word = |base: u32, offset: i64| &dtcm[(i64::from(base / 4) + offset) as usize];
        let (y_axis, x_axis) = (self.y_axis(), self.x_axis());
        let (in_w, in_c, tile) = (i64::from(self.in_w), i64::from(self.in_c), i64::from(self.co_tile));
        let (x_exp, dy_exp) = (word(self.x_exp, 0).get() as i32, word(self.dy_exp, 0).get() as i32);
        let mut at = 0;
        for ky in 0..self.kh {
            for kx in 0..self.kw {
                for ci in 0..self.ci_tile {
                    for co in 0..self.co_tile {
                        let mut sum = 0i64;
                        for oy in self.oy0..self.oy_end() {
                            let Some(iy) = y_axis.input_of(oy, ky) else { continue };
                            for ox in 0..self.out_w {
                                let Some(ix) = x_axis.input_of(ox, kx) else { continue };
                                let x = ((i64::from(iy) - i64::from(self.iy0)) * in_w + i64::from(ix)) * in_c
                                    + i64::from(self.ci0 + ci);
                                let dy = (i64::from(oy - self.oy0) * i64::from(self.out_w) + i64::from(ox)) * tile
                                    + i64::from(co);
                                let (x, dy) = (word(self.x, x).get() as i32, word(self.dy, dy).get() as i32);
                                sum = sum.wrapping_add(i64::from(x) * i64::from(dy));
                            }
                        }
                        let dw = word(self.dw, at);
                        dw.set(round::add(dw.get(), round::product(sum, x_exp, dy_exp)));
                        at += 1;
                    }
                }
            }
        }
    }

    /// A row of products for each tap and input channel, over the pixels that have the tap inside.
    #[cfg(target_arch = "arm")]
    fn run_arm(&self, dtcm: &[Cell<u32>]) {
        use crate::arm::{self, ProductRows};
        let (y_axis, x_axis) = (self.y_axis(), self.x_axis());
        let row_bytes = 4 * self.in_w * self.in_c;
        let (x_step, dy_step) = (4 * self.stride_x * self.in_c, 4 * self.co_tile);
        // As many as a tile has columns.
        let exponents = [dtcm::word(dtcm, self.dy_exp as usize / 4).get(); 4];
        let mut row = ProductRows {
            a_step: x_step,
            b_step: dy_step,
            terms: 0,
            segments: 0,
            x_count: 1,
            a_x: 0,
            b_x: 0,
            a_y: 0,
            b_y: 0,
            a_exp: 0,
            accumulate: 1,
            b_exps_step: 0,
            a: 0,
            c: 0,
            b_exps: exponents.as_ptr() as u32,
            columns: self.co_tile,
            b: 0,
            rows: 0,
            a_next: 4,
            c_next: dy_step,
            a_exps: arm::address(dtcm, self.x_exp),
            a_exps_step: 0,
        };
        let mut dw = arm::address(dtcm, self.dw);
        for ky in 0..self.kh {
            let (oy, oy_end) = y_axis.outputs(ky, self.oy0, self.oy_end());
            let iy = y_axis.unbounded(oy, ky).unwrap_or(0);
            for kx in 0..self.kw {
                let (ox, ox_end) = x_axis.outputs(kx, 0, self.out_w);
                let ix = x_axis.unbounded(ox, kx).unwrap_or(0);
                row.terms = ox_end - ox;
                row.segments = if row.terms == 0 { 0 } else { oy_end - oy };
                row.a = arm::address(dtcm, self.x)
                    .wrapping_add((iy.wrapping_sub(self.iy0) as u32).wrapping_mul(row_bytes))
                    .wrapping_add((ix as u32).wrapping_mul(4 * self.in_c))
                    .wrapping_add(4 * self.ci0);
                row.b = arm::address(dtcm, self.dy)
                    .wrapping_add((oy.wrapping_sub(self.oy0) * self.out_w).wrapping_add(ox).wrapping_mul(dy_step));
                row.a_y = (self.stride_y * row_bytes).wrapping_sub(row.terms * x_step);
                row.b_y = (self.out_w - row.terms) * dy_step;
                (row.c, row.rows) = (dw, self.ci_tile);
                // SAFETY: the call was checked.
                unsafe { row.run(Operands::Mantissas) }
                dw += self.ci_tile * dy_step;
            }
        }
    }

    /// A product whose rows are the weights' (ky, kx, ci), summed over the pixels. False: the window is too large.
    #[cfg(any(test, feature = "std"))]
    pub(super) fn run_at(&self, dtcm: &[Cell<u32>], level: super::product::Level) -> bool {
        use super::product::{Product, Row, Segment};
        let (y_axis, x_axis) = (self.y_axis(), self.x_axis());
        let (oy0, oy_end) = (self.oy0, self.oy_end());
        let held = y_axis.needed(oy0, oy_end);
        let y_hull = if oy0 < oy_end { hull(&y_axis, oy0, oy_end, false) } else { None }.unwrap_or((0, -1));
        let x_hull = if self.out_w > 0 { hull(&x_axis, 0, self.out_w, false) } else { None }.unwrap_or((0, -1));
        let from = |address: u32| &dtcm[(address as usize / 4).min(dtcm.len())..];
        let tile = self.co_tile as usize;
        with_window(dtcm, &self.picture(), held, y_hull, x_hull, |window| {
            let mut segments: Vec<Segment> = Vec::new();
            let out_w = self.out_w as usize;
            let mut rows = Vec::with_capacity((self.kh * self.kw * self.ci_tile) as usize);
            if self.pixels() > 0 {
                let y_step = self.stride_y as usize * window.row;
                segments.extend((0..(oy_end - oy0) as usize).map(|r| Segment {
                    a: r * y_step,
                    b: r * out_w * tile,
                    terms: out_w,
                }));
            }
            for ky in 0..self.kh {
                for kx in 0..self.kw {
                    let a = match (y_axis.unbounded(oy0, ky), x_axis.unbounded(0, kx)) {
                        (Some(iy), Some(ix)) if !segments.is_empty() => {
                            window.at(iy.into(), ix.into()) + self.ci0 as usize
                        }
                        _ => 0,
                    };
                    for ci in 0..self.ci_tile as usize {
                        rows.push(Row { a: a + ci, c: rows.len() * tile });
                    }
                }
            }
            let exps: Vec<Cell<u32>> = vec![from(self.dy_exp)[0].clone(); tile];
            Product {
                operands: Operands::Mantissas,
                a: window.cells,
                a_step: self.stride_x as usize * window.column,
                a_exps: dtcm::words(dtcm, self.x_exp, 1),
                rows: &rows,
                segments: &segments,
                b: from(self.dy),
                b_stride: tile,
                b_exps: &exps,
                n: tile,
                c: from(self.dw),
                accumulate: true,
            }
            .run(level);
        })
        .is_some()
    }
}

impl Kernel for ConvWgrad {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_axis(["stride_y", "dilation_y", "up_y"], &self.y_axis(), self.oy_end())?;
        check_axis(["stride_x", "dilation_x", "up_x"], &self.x_axis(), self.out_w)?;
        if self.is_empty() {
            return Ok(());
        }
        if self.pixels() > BLOCK_TERMS_MAX {
            return Err(BadCall::too_many_terms(self.pixels()));
        }
        if self.ci0.saturating_add(self.ci_tile) > self.in_c {
            return Err(BadCall::value("in_c", self.in_c));
        }
        let d = Bounds { words: dtcm_words };
        let rows = times(times(self.kh, self.kw), self.ci_tile);
        let dw = d.span("dw", self.dw, times(rows, self.co_tile))?;
        let x = if self.out_w == 0 {
            d.span("x", self.x, 0)?
        } else {
            self.picture().span(&d, &self.y_axis(), self.oy0, self.oy_end())?
        };
        dw.apart_from(&[
            x,
            d.span("x_exp", self.x_exp, 1)?,
            d.span("dy", self.dy, times(self.pixels(), self.co_tile))?,
            d.span("dy_exp", self.dy_exp, 1)?,
        ])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        if self.is_empty() {
            return;
        }
        let dtcm = dtcm::cells(dtcm);
        #[cfg(any(test, feature = "std"))]
        if self.run_at(dtcm, super::product::Level::detect()) {
            return;
        }
        #[cfg(target_arch = "arm")]
        self.run_arm(dtcm);
        #[cfg(not(target_arch = "arm"))]
        self.run_scalar(dtcm);
    }

    fn cycles(&self) -> u64 {
        if self.is_empty() {
            cost::CALL
        } else {
            cost::conv_wgrad(self, &self.y_axis(), &self.x_axis(), Operands::Mantissas)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::product::Level;
    use crate::block::test_data::{Mantissas, same};
    use proptest::prelude::*;

    const WORDS: usize = 16_384;

    fn dtcm_of(operands: Operands, seed: u64, exps: &[usize], numbers: core::ops::Range<usize>) -> Vec<u32> {
        let mut data = Mantissas::new(seed);
        let mut dtcm = vec![0; WORDS];
        data.operands(operands, &mut dtcm);
        for &e in exps {
            data.exponents(&mut dtcm[e..e + 1]);
        }
        data.numbers(&mut dtcm[numbers]);
        dtcm
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn convolutions_agree(
            (kh, kw, ci_group, groups, per_group) in (1u32..5, 1u32..5, 1u32..4, 1u32..4, 1u32..6),
            (in_h, in_w, out_h, out_w) in (1u32..9, 1u32..9, 1u32..8, 1u32..10),
            (stride_y, stride_x, dilation_y, dilation_x) in (1u32..3, 1u32..3, 1u32..3, 1u32..3),
            (pad_y, pad_x, up_y, up_x) in (-1i32..4, -1i32..4, 1u32..3, 1u32..4),
            (oy0, rows, cut, accumulate, apart) in (0u32..4, 0u32..5, 0u32..3, 0u32..2, 0u32..3),
            (halves, seed) in any::<(bool, u64)>(),
        ) {
            let operands = if halves { Operands::Halves } else { Operands::Mantissas };
            let (co0, co_tile) = (cut.min(groups * per_group - 1), groups * per_group);
            let mut call = Conv {
                x: 4 * 1000, x_exp: 0, in_h, in_w, in_c: ci_group * groups, w: 4 * 6000, w_stride: co_tile - co0 + apart, w_exps: 4, kh, kw, ci_group, co_group: per_group,
                co0, co_tile: co_tile - co0, y: 4 * 12_000, oy0, rows, out_h, out_w, stride_y, stride_x, dilation_y, dilation_x,
                pad_y, pad_x, up_y, up_x, accumulate, iy0: 0,
            };
            call.iy0 = call.y_axis().needed(oy0, call.oy_end()).map_or(-7, |(low, _)| low as i32);
            let dtcm = dtcm_of(operands, seed, &(0..1 + co_tile as usize).collect::<Vec<_>>(), 12_000..WORDS);
            call.check(WORDS).unwrap();
            let mut expected = dtcm.clone();
            call.run_scalar(dtcm::cells(&mut expected), operands);
            for level in Level::all() {
                let mut found = dtcm.clone();
                if !call.is_empty() {
                    prop_assert!(call.run_at(dtcm::cells(&mut found), operands, level));
                }
                same(&expected, &found, level)?;
            }
            call.cycles();
        }

        #[test]
        fn gradients_agree(
            (kh, kw, ci_tile, more, co_tile) in (1u32..5, 1u32..5, 1u32..4, 0u32..3, 1u32..19),
            (in_h, in_w, out_h, out_w) in (1u32..9, 1u32..9, 1u32..8, 0u32..10),
            (stride_y, stride_x, dilation_y, dilation_x) in (1u32..3, 1u32..3, 1u32..3, 1u32..3),
            (pad_y, pad_x, oy0, rows) in (-1i32..4, -1i32..4, 0u32..4, 0u32..5),
            seed: u64,
        ) {
            let mut call = ConvWgrad {
                x: 4 * 1000, x_exp: 0, iy0: 0, in_h, in_w, in_c: ci_tile + more, ci0: more / 2, ci_tile, dy: 4 * 3000, dy_exp: 4, co_tile,
                oy0, rows, out_h, out_w, dw: 4 * 12_000, kh, kw, stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x,
            };
            call.iy0 = call.y_axis().needed(oy0, call.oy_end()).map_or(9, |(low, _)| low as i32);
            let dtcm = dtcm_of(Operands::Mantissas, seed, &[0, 1], 12_000..WORDS);
            call.check(WORDS).unwrap();
            let mut expected = dtcm.clone();
            call.run_scalar(dtcm::cells(&mut expected));
            for level in Level::all() {
                let mut found = dtcm.clone();
                prop_assert!(call.run_at(dtcm::cells(&mut found), level));
                same(&expected, &found, level)?;
            }
            call.cycles();
        }

        #[test]
        fn no_accepted_call_panics(words in prop::collection::vec(prop_oneof![0u32..6, 0u32..80, any::<u32>()], 40)) {
            for number in [6, 7] {
                let count = if number == 6 { Conv::FIELDS.len() } else { ConvWgrad::FIELDS.len() };
                let call = crate::KernelCall::decode(number, &words[..count]).unwrap();
                let mut dtcm = vec![3; 300];
                if call.check(dtcm.len()).is_ok() {
                    call.run(&mut dtcm);
                    call.cycles();
                }
            }
        }
    }
}
