//! Format `bfp16`: alignment to halves, and the products of format `f32` on words of two.

use core::cell::Cell;

use super::conv::check_axis;
#[cfg(not(target_arch = "arm"))]
use super::prep::{COLUMNS, ColumnAligner, align, largest, largest_of_columns};
use super::round::{self, Operands, half_as_mantissa, half_exponent};
use crate::call::{
    BLOCK_TERMS_MAX, Conv, ConvHalf, ConvWgrad, ConvWgradHalf, EXPONENT_ZERO, Gemm, GemmHalf, PrepConvBackwardHalf,
    PrepHalf, PrepWindow, PrepWindowHalf,
};
use crate::dtcm::{self, BadCall, Bounds, Span, times};
use crate::{Kernel, cost};

/// On a core: assembly, and little on the stack.
#[cfg(target_arch = "arm")]
mod on_core {
    use core::cell::Cell;

    use crate::arm::{self, Halves};

    /// Largest magnitude (as bits) of numbers that lie together.
    pub fn largest(x: &[Cell<u32>]) -> u32 {
        // SAFETY: the numbers are in memory.
        unsafe { arm::largest(x.as_ptr().cast(), 4, x.len() as u32, 0) }
    }

    /// Halves of a line of `x`, `step` words apart: the second of a word `pair` words behind the first, or side by side (`None`).
    pub fn align_line(
        x: &[Cell<u32>],
        (count, x_step, pair): (usize, usize, usize),
        exponent: i32,
        out: &[Cell<u32>],
        step: usize,
    ) {
        let halves = Halves {
            x: x.as_ptr().cast(),
            x_step: 4 * x_step as u32,
            pair_step: (pair > 0).then_some(4 * pair as u32),
            out: out.as_ptr().cast::<u32>().cast_mut(),
            out_step: 4 * step as u32,
        };
        // SAFETY: the call was checked.
        unsafe { arm::align_halves(halves, count as u32, super::half_as_mantissa(exponent)) }
    }
}

#[cfg(target_arch = "arm")]
use on_core::{align_line, largest};

/// Two halves (as 32-bit integers) in a word.
#[cfg(not(target_arch = "arm"))]
fn pack(low: u32, high: u32) -> u32 {
    low & 0xFFFF | high << 16
}

/// Halves of numbers that lie together and share an exponent, two to a word of `out` (each `step` words from the next).
#[cfg(target_arch = "arm")]
fn align_pairs(x: &[Cell<u32>], exponent: i32, out: &[Cell<u32>], step: usize) {
    let pairs = x.len() / 2;
    align_line(x, (pairs, 2, 1), exponent, out, step);
    if x.len() % 2 == 1 {
        align_line(&x[2 * pairs..], (1, 1, 0), exponent, &out[pairs * step..], step);
    }
}

/// Halves of numbers that lie together and share an exponent, two to a word of `out` (each `step` words from the next).
#[cfg(not(target_arch = "arm"))]
fn align_pairs(x: &[Cell<u32>], exponent: i32, out: &[Cell<u32>], step: usize) {
    let mut halves = [0; COLUMNS];
    for (i, x) in x.chunks(COLUMNS).enumerate() {
        align(x, half_as_mantissa(exponent), &dtcm::cells(&mut halves)[..x.len()]);
        for (j, pair) in halves[..x.len()].chunks(2).enumerate() {
            out[(i * COLUMNS / 2 + j) * step].set(pack(pair[0], pair.get(1).copied().unwrap_or(0)));
        }
    }
}

impl PrepHalf {
    fn row<'a>(&self, dtcm: &'a [Cell<u32>], r: usize) -> &'a [Cell<u32>] {
        &dtcm[self.src as usize / 4 + r * self.src_stride as usize..][..self.cols as usize]
    }

    /// Rows and columns of words of the result.
    fn target_shape(&self) -> (u32, u32) {
        match self.pair_rows {
            0 => (self.rows, self.cols.div_ceil(2)),
            group => {
                let (whole, rest) = (self.rows / group, self.rows % group);
                (whole * group.div_ceil(2) + rest.div_ceil(2), self.cols)
            }
        }
    }

    fn target(&self, d: &Bounds) -> Result<Span, BadCall> {
        let (rows, cols) = self.target_shape();
        if rows == 0 || cols == 0 {
            return d.span("dst", self.dst, 0);
        }
        let last = times(rows - 1, self.dst_row_stride).saturating_add(times(cols - 1, self.dst_col_stride));
        d.span("dst", self.dst, last.saturating_add(1))
    }

    /// Whether no word of the result comes to lie behind those that it is made of.
    fn follows(&self) -> bool {
        self.src == self.dst
            && self.dst_col_stride == 1
            && if self.pair_rows == 0 {
                self.dst_row_stride <= self.src_stride
            } else {
                self.src_stride == self.cols && self.dst_row_stride == self.cols
            }
    }

    fn exponents(&self) -> u32 {
        [1, self.rows, self.cols][self.axis as usize]
    }

    /// One or several exponents, column by column: a column's words come to lie where only numbers of it are.
    #[cfg(target_arch = "arm")]
    fn run_columns(&self, dtcm: &[Cell<u32>], exps: &[Cell<u32>], rows: usize) {
        use super::round::mantissa;
        let (cols, stride) = (self.cols as usize, self.src_stride as usize);
        let src = &dtcm[self.src as usize / 4..];
        let dst = &dtcm[self.dst as usize / 4..];
        let (row_stride, col_stride) = (self.dst_row_stride as usize, self.dst_col_stride as usize);
        if self.axis == 0 {
            exps[0].set(half_exponent((0..rows).map(|r| largest(self.row(dtcm, r))).max().unwrap_or(0)) as u32);
        } else {
            for (c, exp) in exps.iter().enumerate() {
                // SAFETY: the call was checked.
                let most = unsafe {
                    crate::arm::largest(src.as_ptr().wrapping_add(c).cast(), 4 * self.src_stride, rows as u32, 0)
                };
                exp.set(half_exponent(most) as u32);
            }
        }
        let exponent = |c: usize| exps[if self.axis == 0 { 0 } else { c }].get() as i32;
        if self.pair_rows == 0 {
            for r in 0..rows {
                if self.axis == 0 {
                    align_pairs(self.row(dtcm, r), exponent(0), &dst[r * row_stride..], col_stride);
                    continue;
                }
                for (j, pair) in self.row(dtcm, r).chunks(2).enumerate() {
                    let half = |i: usize| {
                        let x = pair.get(i).map_or(0, Cell::get);
                        mantissa(x, half_as_mantissa(if x == 0 { 0 } else { exponent(2 * j + i) })) as u32
                    };
                    dst[r * row_stride + j * col_stride].set(half(0) & 0xFFFF | half(1) << 16);
                }
            }
            return;
        }
        let group = self.pair_rows as usize;
        for c in 0..cols {
            let (mut r, mut place) = (0, c * col_stride);
            while r < rows {
                let count = group.min(rows - r);
                let at = |r: usize| &src[r * stride + c..];
                align_line(at(r), (count / 2, 2 * stride, stride), exponent(c), &dst[place..], row_stride);
                place += count / 2 * row_stride;
                r += count;
                if count % 2 == 1 {
                    align_line(at(r - 1), (1, 1, 0), exponent(c), &dst[place..], row_stride);
                    place += row_stride;
                }
            }
        }
    }

    /// Stores all rows, aligned by columns' exponents (or the one of all): `aligner` for each `COLUMNS` columns.
    #[cfg(not(target_arch = "arm"))]
    fn store_rows(&self, dtcm: &[Cell<u32>], c0: usize, count: usize, aligner: &ColumnAligner) {
        let (row_stride, col_stride) = (self.dst_row_stride as usize, self.dst_col_stride as usize);
        let dst = &dtcm[self.dst as usize / 4..];
        let mut halves = [[0u32; COLUMNS]; 2];
        let mut place = 0;
        let mut r = 0;
        while r < self.rows as usize {
            aligner.align(&self.row(dtcm, r)[c0..][..count], &dtcm::cells(&mut halves[0])[..count]);
            if self.pair_rows == 0 {
                for (j, pair) in halves[0][..count].chunks(2).enumerate() {
                    let word = pack(pair[0], pair.get(1).copied().unwrap_or(0));
                    dst[r * row_stride + (c0 / 2 + j) * col_stride].set(word);
                }
                r += 1;
                continue;
            }
            // The other row of the pair, if the group has one.
            let group = self.pair_rows as usize;
            let paired = r % group + 1 < group && r + 1 < self.rows as usize;
            if paired {
                aligner.align(&self.row(dtcm, r + 1)[c0..][..count], &dtcm::cells(&mut halves[1])[..count]);
            }
            for j in 0..count {
                let high = if paired { halves[1][j] } else { 0 };
                dst[place * row_stride + (c0 + j) * col_stride].set(pack(halves[0][j], high));
            }
            place += 1;
            r += 1 + usize::from(paired);
        }
    }
}

impl Kernel for PrepHalf {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        dtcm::below("axis", self.axis, 3)?;
        // Rows of their own exponents are not joined.
        if self.axis == 1 && self.pair_rows > 0 {
            return Err(BadCall::value("pair_rows", self.pair_rows));
        }
        // Without this the number of rows would have no bound.
        if self.rows > 1 && self.src_stride < self.cols.max(1) {
            return Err(BadCall::value("src_stride", self.src_stride));
        }
        let d = Bounds { words: dtcm_words };
        let src = d.rows("src", self.src, self.rows, self.cols, self.src_stride)?;
        let dst = self.target(&d)?;
        d.span("exps", self.exps, self.exponents())?.apart_from(&[src, dst])?;
        if self.follows() { Ok(()) } else { dst.apart_from(&[src]) }
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        let exps = dtcm::words(dtcm, self.exps, self.exponents() as usize);
        let (rows, cols) = (if self.cols == 0 { 0 } else { self.rows as usize }, self.cols as usize);
        if self.axis == 1 {
            for (r, exp) in exps.iter().enumerate() {
                let e = if cols == 0 { EXPONENT_ZERO } else { half_exponent(largest(self.row(dtcm, r))) };
                exp.set(e as u32);
                if cols > 0 {
                    let dst = &dtcm[self.dst as usize / 4 + r * self.dst_row_stride as usize..];
                    align_pairs(self.row(dtcm, r), e, dst, self.dst_col_stride as usize);
                }
            }
            return;
        }
        #[cfg(target_arch = "arm")]
        self.run_columns(dtcm, exps, rows);
        #[cfg(not(target_arch = "arm"))]
        self.run_rows(dtcm, exps, rows, cols);
    }

    fn cycles(&self) -> u64 {
        cost::prep_half(self)
    }
}

#[cfg(not(target_arch = "arm"))]
impl PrepHalf {
    /// One or several exponents, row by row.
    fn run_rows(&self, dtcm: &[Cell<u32>], exps: &[Cell<u32>], rows: usize, cols: usize) {
        let whole = (self.axis == 0).then(|| {
            let e = half_exponent((0..rows).map(|r| largest(self.row(dtcm, r))).max().unwrap_or(0));
            exps[0].set(e as u32);
            e
        });
        // All exponents first: a column's words come to lie where others are still to be read.
        if whole.is_none() {
            for c0 in (0..cols).step_by(COLUMNS) {
                let count = COLUMNS.min(cols - c0);
                let mut most = [0; COLUMNS];
                for r in 0..rows {
                    largest_of_columns(&self.row(dtcm, r)[c0..], &mut most[..count]);
                }
                for (e, &m) in exps[c0..][..count].iter().zip(&most) {
                    e.set(half_exponent(m) as u32);
                }
            }
        }
        if rows == 0 {
            return;
        }
        let aligner = |c0: usize, count: usize| {
            let mut exponents = [EXPONENT_ZERO; COLUMNS];
            for (j, e) in exponents[..count].iter_mut().enumerate() {
                *e = half_as_mantissa(whole.unwrap_or_else(|| exps[c0 + j].get() as i32));
            }
            ColumnAligner::new(exponents, count)
        };
        if cols <= COLUMNS {
            return self.store_rows(dtcm, 0, cols, &aligner(0, cols));
        }
        self.store_wide(dtcm, cols, aligner);
    }

    /// More columns than fit the stack: row by row, so that a result in place stays behind what is read.
    fn store_wide(&self, dtcm: &[Cell<u32>], cols: usize, aligner: impl Fn(usize, usize) -> ColumnAligner) {
        let rows = self.rows as usize;
        let (mut r, mut place) = (0, 0);
        while r < rows {
            let group = self.pair_rows as usize;
            let paired = group > 0 && r % group + 1 < group && r + 1 < rows;
            let part = PrepHalf {
                src: self.src + (r * self.src_stride as usize * 4) as u32,
                dst: self.dst + (place * self.dst_row_stride as usize * 4) as u32,
                rows: 1 + u32::from(paired),
                pair_rows: if group == 0 { 0 } else { 2 },
                ..*self
            };
            for c0 in (0..cols).step_by(COLUMNS) {
                let count = COLUMNS.min(cols - c0);
                part.store_rows(dtcm, c0, count, &aligner(c0, count));
            }
            r += 1 + usize::from(paired);
            place += 1;
        }
    }
}

impl PrepConvBackwardHalf {
    /// Words of the kernel, and of the result.
    fn sizes(&self) -> (u32, u32) {
        let words = |co: u32| [self.kw, self.ci, co].iter().fold(self.kh, |n, &f| times(n, f));
        (words(self.co), words(self.co.div_ceil(2)))
    }
}

impl Kernel for PrepConvBackwardHalf {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let d = Bounds { words: dtcm_words };
        let (from, to) = self.sizes();
        let (src, dst) = (d.span("src", self.src, from)?, d.span("dst", self.dst, to)?);
        dst.apart_from(&[src])?;
        d.span("exps", self.exps, self.ci)?.apart_from(&[src, dst])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        let (ci, co) = (self.ci as usize, self.co as usize);
        let (from, to) = self.sizes();
        let taps = if from == 0 { 0 } else { from as usize / (ci * co) };
        let src = dtcm::words(dtcm, self.src, from as usize);
        let dst = dtcm::words(dtcm, self.dst, to as usize);
        let exps = dtcm::words(dtcm, self.exps, ci);
        for c in 0..ci {
            let of = |tap: usize| &src[(tap * ci + c) * co..][..co];
            let e = half_exponent((0..taps).map(|t| largest(of(t))).max().unwrap_or(0));
            exps[c].set(e as u32);
            for t in 0..taps {
                // Both axes of the taps are reversed: the last tap comes first.
                align_pairs(of(t), e, &dst[(taps - 1 - t) * co.div_ceil(2) * ci + c..], ci);
            }
        }
    }

    fn cycles(&self) -> u64 {
        cost::prep_conv_backward_half(self)
    }
}

impl PrepWindowHalf {
    /// The window of numbers.
    fn window(&self) -> PrepWindow {
        let row_words = times(self.pixels, self.channels);
        PrepWindow { x: self.x, first: self.first, rows: self.rows, limit: self.limit, row_words, exp: self.exp }
    }
    /// Rows that exist, counted from `first`.
    pub(crate) fn held(&self) -> (u32, u32) {
        self.window().held()
    }
}

impl Kernel for PrepWindowHalf {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        self.window().check(dtcm_words)?;
        // Where rows lie afterwards.
        let (from, to) = self.held();
        let packed = times(self.pixels, self.channels.div_ceil(2));
        let d = Bounds { words: dtcm_words };
        let after = d.part("x", self.x, times(from, packed).into(), times(to, packed).into())?;
        d.span("exp", self.exp, 1)?.apart_from(&[after])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let (from, to) = self.held();
        let dtcm = dtcm::cells(dtcm);
        let (pixels, channels) = (self.pixels as usize, self.channels as usize);
        let (row, packed) = (pixels * channels, pixels * channels.div_ceil(2));
        let x = self.x as usize / 4;
        if row == 0 || from == to {
            dtcm[self.exp as usize / 4].set(EXPONENT_ZERO as u32);
            return;
        }
        let numbers = &dtcm[x + from as usize * row..x + to as usize * row];
        let e = half_exponent(largest(numbers));
        dtcm[self.exp as usize / 4].set(e as u32);
        #[cfg(target_arch = "arm")]
        if channels == 1 {
            return align_line(numbers, (numbers.len(), 1, 0), e, &dtcm[x + from as usize * packed..], 1);
        }
        // Pixels of an even number of channels need no half for themselves.
        let (count, words) = if channels.is_multiple_of(2) { (row, packed) } else { (channels, channels.div_ceil(2)) };
        let mut out = x + from as usize * packed;
        for part in numbers.chunks_exact(count) {
            align_pairs(part, e, &dtcm[out..], 1);
            out += words;
        }
    }

    fn cycles(&self) -> u64 {
        cost::prep_window_half(self)
    }
}

impl GemmHalf {
    /// The product on words.
    fn on_words(&self) -> Gemm {
        let GemmHalf { a, a_exps, a_stride, b, b_exps, b_stride, c, c_stride, m, k, n, accumulate } = *self;
        Gemm { a, a_exps, a_stride, b, b_exps, b_stride, c, c_stride, m, k: k.div_ceil(2), n, accumulate }
    }
}

impl Kernel for GemmHalf {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        self.on_words().check(dtcm_words)
    }
    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let words = self.on_words();
        if !words.is_empty() {
            words.run_on(dtcm::cells(dtcm), Operands::Halves);
        }
    }
    fn cycles(&self) -> u64 {
        cost::gemm(&self.on_words(), Operands::Halves)
    }
}

impl ConvHalf {
    /// The convolution on words.
    #[rustfmt::skip]
    fn on_words(&self) -> Conv {
        let ConvHalf {
            x, x_exp, iy0, in_h, in_w, in_c, w, w_stride, w_exps, kh, kw, ci_group, co_group, co0, co_tile, y, oy0, rows, out_h, out_w,
            stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x, up_y, up_x, accumulate,
        } = *self;
        Conv {
            x, x_exp, iy0, in_h, in_w, in_c, w, w_stride, w_exps, kh, kw, ci_group, co_group, co0, co_tile, y, oy0, rows, out_h, out_w,
            stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x, up_y, up_x, accumulate,
        }
    }
}

impl Kernel for ConvHalf {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        self.on_words().check(dtcm_words)
    }
    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let words = self.on_words();
        if !words.is_empty() {
            words.run_on(dtcm::cells(dtcm), Operands::Halves);
        }
    }
    fn cycles(&self) -> u64 {
        self.on_words().cycles_of(Operands::Halves)
    }
}

impl ConvWgradHalf {
    /// The same geometry with another number of words in a pixel of `x`.
    #[rustfmt::skip]
    fn with_channels(&self, in_c: u32, ci0: u32, ci_tile: u32) -> ConvWgrad {
        let ConvWgradHalf {
            x, x_exp, iy0, in_h, in_w, dy, dy_exp, co_tile, oy0, rows, out_h, out_w, dw, kh, kw, stride_y, stride_x, dilation_y,
            dilation_x, pad_y, pad_x, ..
        } = *self;
        ConvWgrad {
            x, x_exp, iy0, in_h, in_w, in_c, ci0, ci_tile, dy, dy_exp, co_tile, oy0, rows, out_h, out_w, dw, kh, kw, stride_y, stride_x,
            dilation_y, dilation_x, pad_y, pad_x,
        }
    }

    /// Words of a pixel of `dy`.
    fn dy_pixel(&self) -> u32 {
        self.co_tile.div_ceil(2)
    }

    /// Pairs of channels of both sides for each tap, over the pixels that have the tap inside.
    #[cfg(target_arch = "arm")]
    fn run_arm(&self, dtcm: &[Cell<u32>]) {
        use crate::arm::{self, GradientRows};
        let geometry = self.with_channels(self.in_c, 0, 0);
        let (y_axis, x_axis) = (geometry.y_axis(), geometry.x_axis());
        let row_bytes = 4 * self.in_w * self.in_c;
        let (a_step, b_step) = (4 * self.stride_x * self.in_c, 4 * self.dy_pixel());
        let exponent = |at: u32| dtcm::word(dtcm, at as usize / 4).get() as i32;
        let mut rows = GradientRows {
            a_step,
            b_step,
            terms: 0,
            segments: 0,
            a_y: 0,
            b_y: 0,
            a: 0,
            b: 0,
            c: arm::address(dtcm, self.dw),
            columns: self.co_tile,
            rows: self.ci_tile,
            a_exp: exponent(self.x_exp),
            b_exp: exponent(self.dy_exp),
        };
        for ky in 0..self.kh {
            let (oy, oy_end) = y_axis.outputs(ky, self.oy0, geometry.oy_end());
            let iy = y_axis.unbounded(oy, ky).unwrap_or(0);
            for kx in 0..self.kw {
                let (ox, ox_end) = x_axis.outputs(kx, 0, self.out_w);
                let ix = x_axis.unbounded(ox, kx).unwrap_or(0);
                rows.terms = ox_end - ox;
                rows.segments = if rows.terms == 0 { 0 } else { oy_end - oy };
                rows.a = arm::address(dtcm, self.x)
                    .wrapping_add((iy.wrapping_sub(self.iy0) as u32).wrapping_mul(row_bytes))
                    .wrapping_add((ix as u32).wrapping_mul(4 * self.in_c))
                    .wrapping_add(2 * self.ci0);
                rows.b = arm::address(dtcm, self.dy)
                    .wrapping_add((oy.wrapping_sub(self.oy0) * self.out_w).wrapping_add(ox).wrapping_mul(b_step));
                rows.a_y = (self.stride_y * row_bytes).wrapping_sub(rows.terms * a_step);
                rows.b_y = (self.out_w - rows.terms) * b_step;
                // SAFETY: the call was checked, and is not empty.
                unsafe { rows.run() }
                rows.c += 4 * self.ci_tile * self.co_tile;
            }
        }
    }

    /// The definition, one integer operation after the other.
    #[cfg_attr(any(feature = "std", target_arch = "arm"), allow(dead_code))]
    fn run_scalar(&self, dtcm: &[Cell<u32>]) {
        let geometry = self.with_channels(self.in_c, 0, 0);
        let (y_axis, x_axis) = (geometry.y_axis(), geometry.x_axis());
        let half = |base: u32, pixel: i64, words: u32, channel: u32| {
            let word = dtcm[(i64::from(base / 4) + pixel * i64::from(words) + i64::from(channel / 2)) as usize].get();
            i64::from((word >> (16 * (channel % 2))) as i16)
        };
        let exponent = |at: u32| dtcm[at as usize / 4].get() as i32;
        let (x_exp, dy_exp) = (exponent(self.x_exp), exponent(self.dy_exp));
        let mut at = self.dw as usize / 4;
        for ky in 0..self.kh {
            for kx in 0..self.kw {
                for ci in self.ci0..self.ci0 + self.ci_tile {
                    for co in 0..self.co_tile {
                        let mut sum = 0i64;
                        for oy in self.oy0..geometry.oy_end() {
                            let Some(iy) = y_axis.input_of(oy, ky) else { continue };
                            for ox in 0..self.out_w {
                                let Some(ix) = x_axis.input_of(ox, kx) else { continue };
                                let x = (i64::from(iy) - i64::from(self.iy0)) * i64::from(self.in_w) + i64::from(ix);
                                let dy = i64::from(oy - self.oy0) * i64::from(self.out_w) + i64::from(ox);
                                sum += half(self.x, x, self.in_c, ci) * half(self.dy, dy, self.dy_pixel(), co);
                            }
                        }
                        let value = round::product(sum, Operands::Halves.exponent(x_exp), dy_exp);
                        dtcm[at].set(round::add(dtcm[at].get(), value));
                        at += 1;
                    }
                }
            }
        }
    }

    /// The gradient of format `f32` on halves that have words of their own.
    #[cfg(any(test, feature = "std"))]
    fn run_unpacked(&self, dtcm: &[Cell<u32>], level: super::product::Level) -> bool {
        let geometry = self.with_channels(self.in_c, 0, 0);
        let Some((low, high)) = geometry.y_axis().needed(self.oy0, geometry.oy_end()) else { return false };
        let unpack = |words: &[Cell<u32>], channels: usize, out: &mut Vec<u32>| {
            for pixel in words.chunks_exact(channels.div_ceil(2)) {
                for c in 0..channels {
                    out.push(i32::from((pixel[c / 2].get() >> (16 * (c % 2))) as i16) as u32);
                }
            }
        };
        let pixels = geometry.pixels() as usize;
        let x_row = i64::from(self.in_w) * i64::from(self.in_c);
        let x_at = i64::from(self.x / 4) + (i64::from(low) - i64::from(self.iy0)) * x_row;
        let x = &dtcm[x_at as usize..][..((high - low + 1) as usize) * x_row as usize];
        let dw_words = (self.kh * self.kw * self.ci_tile * self.co_tile) as usize;
        let exponent = |at: u32| dtcm[at as usize / 4].get();
        let mut scratch = vec![Operands::Halves.exponent(exponent(self.x_exp) as i32) as u32, exponent(self.dy_exp)];
        unpack(x, 2 * self.in_c as usize, &mut scratch);
        let dy = scratch.len() as u32 * 4;
        unpack(dtcm::words(dtcm, self.dy, pixels * self.dy_pixel() as usize), self.co_tile as usize, &mut scratch);
        let dw = scratch.len() as u32 * 4;
        let results = dtcm::words(dtcm, self.dw, dw_words);
        scratch.extend(results.iter().map(Cell::get));
        let call = ConvWgrad {
            x: 8,
            x_exp: 0,
            iy0: low as i32,
            dy,
            dy_exp: 4,
            dw,
            ..self.with_channels(2 * self.in_c, self.ci0, self.ci_tile)
        };
        if !call.run_at(dtcm::cells(&mut scratch), level) {
            return false;
        }
        for (to, from) in results.iter().zip(&scratch[dw as usize / 4..]) {
            to.set(*from);
        }
        true
    }
}

impl Kernel for ConvWgradHalf {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        if !self.ci0.is_multiple_of(2) {
            return Err(BadCall::value("ci0", self.ci0));
        }
        let channels = u64::from(self.ci0) + u64::from(self.ci_tile);
        if channels > 2 * u64::from(self.in_c) {
            return Err(BadCall::value("in_c", self.in_c));
        }
        let all = self.with_channels(self.in_c, 0, self.ci_tile);
        check_axis(["stride_y", "dilation_y", "up_y"], &all.y_axis(), all.oy_end())?;
        check_axis(["stride_x", "dilation_x", "up_x"], &all.x_axis(), self.out_w)?;
        if all.is_empty() {
            return Ok(());
        }
        if all.pixels() > BLOCK_TERMS_MAX {
            return Err(BadCall::too_many_terms(all.pixels()));
        }
        let d = Bounds { words: dtcm_words };
        let rows = times(times(self.kh, self.kw), self.ci_tile);
        let dw = d.span("dw", self.dw, times(rows, self.co_tile))?;
        let x = match all.out_w {
            0 => d.span("x", self.x, 0)?,
            _ => all.picture().span(&d, &all.y_axis(), self.oy0, all.oy_end())?,
        };
        dw.apart_from(&[
            x,
            d.span("x_exp", self.x_exp, 1)?,
            d.span("dy", self.dy, times(all.pixels(), self.dy_pixel()))?,
            d.span("dy_exp", self.dy_exp, 1)?,
        ])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        if self.with_channels(self.in_c, 0, self.ci_tile).is_empty() {
            return;
        }
        let dtcm = dtcm::cells(dtcm);
        #[cfg(any(test, feature = "std"))]
        if self.run_unpacked(dtcm, super::product::Level::detect()) {
            return;
        }
        #[cfg(target_arch = "arm")]
        self.run_arm(dtcm);
        #[cfg(not(target_arch = "arm"))]
        self.run_scalar(dtcm);
    }

    fn cycles(&self) -> u64 {
        let whole = self.with_channels(self.in_c, 0, self.ci_tile);
        if whole.is_empty() {
            cost::CALL
        } else {
            cost::conv_wgrad(&whole, &whole.y_axis(), &whole.x_axis(), Operands::Halves)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::product::Level;
    use crate::block::test_data::{Mantissas, same};
    use proptest::prelude::*;

    /// The number that a half stands for.
    fn value(word: u32, high: bool, exponent: u32) -> f64 {
        let half = if high { (word >> 16) as i16 } else { word as i16 };
        f64::from(half) * 2f64.powi(exponent as i32 - 15)
    }

    fn numbers(seed: u64, count: usize) -> Vec<u32> {
        let mut data = Mantissas::new(seed);
        (0..count).map(|_| data.number(false)).collect()
    }

    /// Largest error of a half in a block: half a unit of its last place.
    fn unit(exponent: u32) -> f64 {
        if exponent as i32 == EXPONENT_ZERO { 0.0 } else { 2f64.powi(exponent as i32 - 16) }
    }

    proptest! {
        #[test]
        fn matrices_become_halves_in_every_layout(
            (rows, cols, extra, axis) in (0u32..12, 0u32..150, 0u32..3, 0u32..3),
            (group, transposed, in_place, seed) in (0u32..5, any::<bool>(), any::<bool>(), any::<u64>()),
        ) {
            let pair_rows = if axis == 1 { 0 } else { group };
            let mut call = PrepHalf { src: 0, rows, cols, src_stride: cols.max(1) + extra, dst: 4 * 2000, exps: 4 * 5000, axis, pair_rows, ..Default::default() };
            let (words_r, words_c) = call.target_shape();
            (call.dst_row_stride, call.dst_col_stride) = if transposed { (1, words_r.max(1)) } else { (words_c.max(1), 1) };
            if in_place && !transposed {
                call.dst = 0;
                call.src_stride = cols.max(1);
            }
            let before = numbers(seed, 6000);
            let mut dtcm = before.clone();
            call.check(6000).unwrap();
            call.run(&mut dtcm);
            for r in 0..rows {
                for c in 0..cols {
                    let x = f64::from(f32::from_bits(before[(r * call.src_stride + c) as usize]));
                    let (wr, wc, high) = match pair_rows {
                        0 => (r, c / 2, c % 2 == 1),
                        g => (r / g * g.div_ceil(2) + r % g / 2, c, r % g % 2 == 1),
                    };
                    let word = dtcm[(call.dst / 4 + wr * call.dst_row_stride + wc * call.dst_col_stride) as usize];
                    let e = dtcm[(call.exps / 4 + [0, r, c][axis as usize]) as usize];
                    prop_assert!((value(word, high, e) - x).abs() <= unit(e), "{} {}: {} {:#x}", r, c, x, word);
                }
            }
            call.cycles();
        }

        #[test]
        fn windows_and_kernels_become_halves(
            (pixels, channels, rows, first) in (0u32..6, 1u32..140, 0u32..4, -2i32..3),
            (kh, kw, ci, co, seed) in (0u32..3, 0u32..3, 0u32..4, 0u32..7, any::<u64>()),
        ) {
            let call = PrepWindowHalf { x: 0, first, rows, limit: 3, pixels, channels, exp: 4 * 5000 };
            let before = numbers(seed, 6000);
            let mut dtcm = before.clone();
            call.check(6000).unwrap();
            call.run(&mut dtcm);
            let (from, to) = call.held();
            let packed = pixels * channels.div_ceil(2);
            for r in from..to {
                for p in 0..pixels {
                    for c in 0..channels {
                        let x = f64::from(f32::from_bits(before[((r * pixels + p) * channels + c) as usize]));
                        let word = dtcm[(r * packed + p * channels.div_ceil(2) + c / 2) as usize];
                        prop_assert!((value(word, c % 2 == 1, dtcm[5000]) - x).abs() <= unit(dtcm[5000]));
                    }
                }
            }
            let call = PrepConvBackwardHalf { src: 0, dst: 4 * 3000, exps: 4 * 5000, kh, kw, ci, co };
            let mut dtcm = before.clone();
            call.check(6000).unwrap();
            call.run(&mut dtcm);
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                for (c, o) in (0..ci).flat_map(|c| (0..co).map(move |o| (c, o))) {
                    let x = f64::from(f32::from_bits(before[(((ky * kw + kx) * ci + c) * co + o) as usize]));
                    let tap = (kh - 1 - ky) * kw + kw - 1 - kx;
                    let word = dtcm[(3000 + (tap * co.div_ceil(2) + o / 2) * ci + c) as usize];
                    let e = dtcm[(5000 + c) as usize];
                    prop_assert!((value(word, o % 2 == 1, e) - x).abs() <= unit(e));
                }
            }
        }

        #[test]
        fn gradients_agree(
            (kh, kw, ci_tile, more, co_tile) in (1u32..4, 1u32..4, 1u32..5, 0u32..3, 1u32..19),
            (in_h, in_w, out_h, out_w) in (1u32..9, 1u32..9, 1u32..8, 0u32..10),
            (stride_y, stride_x, dilation_y, dilation_x) in (1u32..3, 1u32..3, 1u32..3, 1u32..3),
            (pad_y, pad_x, oy0, rows) in (-1i32..4, -1i32..4, 0u32..4, 0u32..5),
            seed: u64,
        ) {
            let ci0 = more / 2 * 2;
            let mut call = ConvWgradHalf {
                x: 4 * 1000, x_exp: 0, iy0: 0, in_h, in_w, in_c: (ci0 + ci_tile).div_ceil(2), ci0, ci_tile, dy: 4 * 3000, dy_exp: 4, co_tile,
                oy0, rows, out_h, out_w, dw: 4 * 6000, kh, kw, stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x,
            };
            let geometry = call.with_channels(1, 0, 1);
            call.iy0 = geometry.y_axis().needed(oy0, geometry.oy_end()).map_or(9, |(low, _)| low as i32);
            let mut data = Mantissas::new(seed);
            let mut dtcm = vec![0; 8000];
            data.halves(&mut dtcm);
            data.exponents(&mut dtcm[..2]);
            data.numbers(&mut dtcm[6000..]);
            call.check(8000).unwrap();
            let mut expected = dtcm.clone();
            call.run_scalar(dtcm::cells(&mut expected));
            for level in Level::all() {
                let mut found = dtcm.clone();
                if !call.run_unpacked(dtcm::cells(&mut found), level) {
                    call.run(&mut found);
                }
                same(&expected, &found, level)?;
            }
            call.cycles();
        }

        #[test]
        fn no_accepted_call_panics(words in prop::collection::vec(prop_oneof![0u32..6, 0u32..80, any::<u32>()], 40)) {
            for number in 30..36 {
                for count in 0..=30 {
                    let Ok(call) = crate::KernelCall::decode(number, &words[..count]) else { continue };
                    let mut dtcm = vec![3; 300];
                    if call.check(dtcm.len()).is_ok() {
                        call.run(&mut dtcm);
                        call.cycles();
                    }
                }
            }
        }
    }

    #[test]
    fn products_stay_below_what_the_format_promises() {
        let gemm = GemmHalf { m: 64, k: 64, n: 64, ..Default::default() };
        let per_mac = gemm.cycles() as f64 / (64.0 * 64.0 * 64.0);
        println!("GemmHalf 64x64x64: {per_mac:.3} cycles per multiply-accumulate");
        assert!(per_mac <= 3.0, "{per_mac}");
    }
}
