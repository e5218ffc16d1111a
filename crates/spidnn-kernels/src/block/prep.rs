//! Alignment: bringing numbers to mantissas with a common exponent.

#[cfg(not(target_arch = "arm"))]
use core::cell::Cell;

use super::round::block_exponent;
#[cfg(any(test, not(target_arch = "arm")))]
use super::round::mantissa;
use crate::call::{Prep2d, PrepConvBackward, PrepWindow};
use crate::dtcm::{self, BadCall, Bounds, Span, extent, times};
use crate::{Kernel, cost};

/// Largest magnitude (as bits) of numbers that lie together.
#[cfg(not(target_arch = "arm"))]
pub(super) fn largest(x: &[Cell<u32>]) -> u32 {
    #[cfg(all(any(test, feature = "std"), target_arch = "x86_64"))]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was detected.
        return unsafe { x86::largest(x) };
    }
    x.iter().map(|x| x.get() & 0x7FFF_FFFF).max().unwrap_or(0)
}

/// Largest magnitude of each column so far.
#[cfg(not(target_arch = "arm"))]
pub(super) fn largest_of_columns(x: &[Cell<u32>], largest: &mut [u32]) {
    for (x, l) in x.iter().zip(largest) {
        *l = (*l).max(x.get() & 0x7FFF_FFFF);
    }
}

/// Mantissas of numbers that share an exponent; `out` may be `x`.
#[cfg(not(target_arch = "arm"))]
pub(super) fn align(x: &[Cell<u32>], exponent: i32, out: &[Cell<u32>]) {
    #[cfg(all(any(test, feature = "std"), target_arch = "x86_64"))]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was detected.
        return unsafe { x86::align(x, &x86::Factors::<8>::of(&[exponent; 8]), out) };
    }
    for (x, o) in x.iter().zip(out) {
        o.set(mantissa(x.get(), exponent) as u32);
    }
}

/// Columns that are aligned together, so that what belongs to them fits on the stack.
#[cfg(not(target_arch = "arm"))]
pub(super) const COLUMNS: usize = 128;

/// How to align a row of columns with an exponent each.
#[cfg(not(target_arch = "arm"))]
pub(super) struct ColumnAligner {
    #[cfg(all(any(test, feature = "std"), target_arch = "x86_64"))]
    factors: Option<x86::Factors<COLUMNS>>,
    exponents: [i32; COLUMNS],
    count: usize,
}

#[cfg(not(target_arch = "arm"))]
impl ColumnAligner {
    pub(super) fn new(exponents: [i32; COLUMNS], count: usize) -> Self {
        ColumnAligner {
            #[cfg(all(any(test, feature = "std"), target_arch = "x86_64"))]
            factors: std::arch::is_x86_feature_detected!("avx2").then(|| x86::Factors::of(&exponents[..count])),
            exponents,
            count,
        }
    }

    pub(super) fn align(&self, x: &[Cell<u32>], out: &[Cell<u32>]) {
        #[cfg(all(any(test, feature = "std"), target_arch = "x86_64"))]
        if let Some(factors) = &self.factors {
            // SAFETY: factors are made where AVX2 was detected.
            return unsafe { x86::align(x, factors, out) };
        }
        for ((x, o), &e) in x.iter().zip(out).zip(&self.exponents[..self.count]) {
            o.set(mantissa(x.get(), e) as u32);
        }
    }
}

#[cfg(all(any(test, feature = "std"), target_arch = "x86_64"))]
mod x86 {
    use crate::call::{EXPONENT_NAN, EXPONENT_ZERO, MANTISSA_BITS};
    use core::arch::x86_64::*;
    use core::cell::Cell;

    /// Powers of two as products of two, since the exponent may be too large for one number; and masks
    /// that clear the mantissas of blocks without numbers. For `N` columns, a multiple of 8.
    pub struct Factors<const N: usize> {
        first: [f32; N],
        second: [f32; N],
        mask: [u32; N],
    }

    impl<const N: usize> Factors<N> {
        /// Factors that make twice the mantissa.
        pub fn of(exponents: &[i32]) -> Self {
            let mut factors = Factors { first: [0.0; N], second: [0.0; N], mask: [0; N] };
            for (i, &exponent) in exponents.iter().enumerate() {
                if exponent == EXPONENT_ZERO || exponent == EXPONENT_NAN {
                    continue;
                }
                // From -101 to 175 for exponents of blocks.
                let power = MANTISSA_BITS as i32 + 1 - exponent;
                let first = power.min(127);
                let two_to = |p: i32| f32::from_bits(((p + 127) as u32) << 23);
                (factors.first[i], factors.second[i], factors.mask[i]) =
                    (two_to(first), two_to(power - first), u32::MAX);
            }
            factors
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn largest(x: &[Cell<u32>]) -> u32 {
        let magnitude = _mm256_set1_epi32(0x7FFF_FFFF);
        let mut most = [_mm256_setzero_si256(); 2];
        let chunks = x.chunks_exact(16);
        let rest = chunks.remainder().iter().map(|x| x.get() & 0x7FFF_FFFF).max().unwrap_or(0);
        for chunk in chunks {
            for (i, m) in most.iter_mut().enumerate() {
                // SAFETY: 16 words.
                let v = unsafe { _mm256_loadu_si256(chunk.as_ptr().add(8 * i).cast()) };
                *m = _mm256_max_epu32(*m, _mm256_and_si256(v, magnitude));
            }
        }
        let most = _mm256_max_epu32(most[0], most[1]);
        let half = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
        let half = _mm_max_epu32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
        let half = _mm_max_epu32(half, _mm_shuffle_epi32::<0b10_11_00_01>(half));
        rest.max(_mm_cvtsi128_si32(half) as u32)
    }

    /// Aligns numbers by the factors of their columns; `N` = 8: all by the same.
    ///
    /// Multiplication by a power of two is exact but for results below 2^-126, which become zero either
    /// way. Twice the mantissa is cut off, then half rounds up.
    #[target_feature(enable = "avx2")]
    pub fn align<const N: usize>(x: &[Cell<u32>], factors: &Factors<N>, out: &[Cell<u32>]) {
        let count = x.len();
        assert!(N.is_multiple_of(8) && out.len() >= count && (N == 8 || N >= count));
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let one = _mm256_set1_epi32(1);
        for i in (0..count).step_by(8) {
            let lane_mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((count - i) as i32), lanes);
            let at = if N == 8 { 0 } else { i };
            // SAFETY: masked lanes are neither read nor written, the others are inside the slices; `at + 8 <= N`.
            unsafe {
                let first = _mm256_loadu_ps(factors.first.as_ptr().add(at));
                let second = _mm256_loadu_ps(factors.second.as_ptr().add(at));
                let mask = _mm256_loadu_si256(factors.mask.as_ptr().add(at).cast());
                let v = _mm256_maskload_epi32(x.as_ptr().add(i).cast(), lane_mask);
                let magnitude = _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(0x7FFF_FFFF)));
                let twice = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_mul_ps(magnitude, first), second));
                let m = _mm256_srli_epi32::<1>(_mm256_add_epi32(twice, one));
                let m = _mm256_and_si256(_mm256_sign_epi32(m, v), mask);
                if count - i >= 8 {
                    _mm256_storeu_si256(out.as_ptr().add(i).cast::<__m256i>().cast_mut(), m);
                } else {
                    // Masked stores are microcode on some processors.
                    let mut tail = [0u32; 8];
                    _mm256_storeu_si256(tail.as_mut_ptr().cast(), m);
                    for (o, m) in out[i..count].iter().zip(tail) {
                        o.set(m);
                    }
                }
            }
        }
    }
}

/// Lines of numbers in DTCM, in bytes: where the first number is, steps from line to line and from number to number.
#[cfg(target_arch = "arm")]
#[derive(Clone, Copy)]
struct Lines {
    start: u32,
    line: u32,
    step: u32,
}

#[cfg(target_arch = "arm")]
impl Lines {
    fn from(self, line: u32) -> Lines {
        Lines { start: self.start + line * self.line, ..self }
    }
    fn turned(self) -> Lines {
        Lines { start: self.start, line: self.step, step: self.line }
    }
}

/// Brings lines of numbers that share an exponent to mantissas.
#[cfg(target_arch = "arm")]
#[inline(never)]
fn align_block(dtcm: &mut [u32], src: Lines, dst: Lines, [lines, count]: [u32; 2], exp: u32) {
    let at = |offset: u32| dtcm.as_ptr().wrapping_byte_add(offset as usize).cast_mut();
    let mut most = 0;
    for line in 0..lines {
        // SAFETY: the call was checked.
        most = unsafe { crate::arm::largest(at(src.from(line).start), src.step, count, most) };
    }
    let exponent = block_exponent(most);
    // SAFETY: as before.
    unsafe { at(exp).write(exponent as u32) };
    for line in 0..lines {
        let (x, out) = (src.start + line * src.line, dst.start.wrapping_add(line.wrapping_mul(dst.line)));
        // SAFETY: as before.
        unsafe { crate::arm::align(at(x), src.step, at(out), dst.step, count, exponent) }
    }
}

impl Prep2d {
    fn source(&self, d: &Bounds) -> Result<Span, BadCall> {
        d.rows("src", self.src, self.rows, self.cols, self.src_stride)
    }
    /// The extent of `dst`; its strides may be either way round.
    fn target(&self, d: &Bounds) -> Result<Span, BadCall> {
        let row = extent(self.cols, 1, self.dst_col_stride);
        d.rows("dst", self.dst, self.rows, row, self.dst_row_stride)
    }
    fn exponents(&self) -> u32 {
        [1, self.rows, self.cols][self.axis as usize]
    }

    #[cfg(not(target_arch = "arm"))]
    fn row<'a>(&self, dtcm: &'a [Cell<u32>], r: u32) -> &'a [Cell<u32>] {
        &dtcm[self.src as usize / 4 + r as usize * self.src_stride as usize..][..self.cols as usize]
    }

    #[cfg(not(target_arch = "arm"))]
    /// Stores columns `c0 ..` of row `r`, which `align` makes from the source's.
    fn store(&self, dtcm: &[Cell<u32>], r: u32, c0: usize, count: usize, align: impl Fn(&[Cell<u32>], &[Cell<u32>])) {
        let src = &self.row(dtcm, r)[c0..][..count];
        let step = self.dst_col_stride as usize;
        let dst = &dtcm[self.dst as usize / 4 + r as usize * self.dst_row_stride as usize + c0 * step..];
        if step == 1 {
            return align(src, &dst[..count]);
        }
        let mut row = [0; COLUMNS];
        for (i, src) in src.chunks(COLUMNS).enumerate() {
            align(src, &dtcm::cells(&mut row)[..src.len()]);
            for (j, m) in row[..src.len()].iter().enumerate() {
                dst[(i * COLUMNS + j) * step].set(*m);
            }
        }
    }
}

impl Kernel for Prep2d {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        dtcm::below("axis", self.axis, 3)?;
        let d = Bounds { words: dtcm_words };
        let (src, dst) = (self.source(&d)?, self.target(&d)?);
        let exps = d.span("exps", self.exps, self.exponents())?;
        exps.apart_from(&[src, dst])?;
        let in_place = self.src == self.dst && self.src_stride == self.dst_row_stride && self.dst_col_stride == 1;
        // Without this the number of rows would have no bound.
        if self.rows > 1 && self.src_stride < self.cols {
            return Err(BadCall::value("src_stride", self.src_stride));
        }
        if in_place { Ok(()) } else { dst.apart_from(&[src]) }
    }

    #[cfg(target_arch = "arm")]
    fn run(&self, dtcm: &mut [u32]) {
        let src = Lines { start: self.src, line: 4 * self.src_stride, step: 4 };
        let dst = Lines { start: self.dst, line: 4 * self.dst_row_stride, step: 4 * self.dst_col_stride };
        let (exps, rows, cols) = (self.exps, self.rows, self.cols);
        match self.axis {
            0 => align_block(dtcm, src, dst, [rows, cols], exps),
            1 => (0..rows).for_each(|r| align_block(dtcm, src.from(r), dst.from(r), [1, cols], exps + 4 * r)),
            _ => {
                let (src, dst) = (src.turned(), dst.turned());
                (0..cols).for_each(|c| align_block(dtcm, src.from(c), dst.from(c), [1, rows], exps + 4 * c));
            }
        }
    }

    #[cfg(not(target_arch = "arm"))]
    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        let exps = dtcm::words(dtcm, self.exps, self.exponents() as usize);
        let (rows, cols) = (if self.cols == 0 { 0 } else { self.rows }, self.cols as usize);
        match self.axis {
            0 => {
                let e = block_exponent((0..rows).map(|r| largest(self.row(dtcm, r))).max().unwrap_or(0));
                exps[0].set(e as u32);
                for r in 0..rows {
                    self.store(dtcm, r, 0, cols, |x, out| align(x, e, out));
                }
            }
            1 => {
                for r in 0..self.rows {
                    let e =
                        if cols == 0 { crate::call::EXPONENT_ZERO } else { block_exponent(largest(self.row(dtcm, r))) };
                    exps[r as usize].set(e as u32);
                    if cols > 0 {
                        self.store(dtcm, r, 0, cols, |x, out| align(x, e, out));
                    }
                }
            }
            _ => {
                for c0 in (0..cols).step_by(COLUMNS) {
                    let count = COLUMNS.min(cols - c0);
                    let mut most = [0; COLUMNS];
                    for r in 0..rows {
                        largest_of_columns(&self.row(dtcm, r)[c0..], &mut most[..count]);
                    }
                    let mut exponents = [0; COLUMNS];
                    for (e, &m) in exponents.iter_mut().zip(&most[..count]) {
                        *e = block_exponent(m);
                    }
                    for (e, &exponent) in exps[c0..][..count].iter().zip(&exponents) {
                        e.set(exponent as u32);
                    }
                    let aligner = ColumnAligner::new(exponents, count);
                    for r in 0..rows {
                        self.store(dtcm, r, c0, count, |x, out| aligner.align(x, out));
                    }
                }
            }
        }
    }

    fn cycles(&self) -> u64 {
        cost::prep2d(self)
    }
}

impl PrepConvBackward {
    /// Words of the kernel: few in a call that was checked, whatever the factors beside a zero are.
    fn kernel_words(&self) -> u32 {
        let taps = times(self.kh, self.kw);
        // Nothing is nothing, however often.
        times(times(taps, self.ci), self.co)
    }
}

impl Kernel for PrepConvBackward {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let d = Bounds { words: dtcm_words };
        let words = self.kernel_words();
        let (src, dst) = (d.span("src", self.src, words)?, d.span("dst", self.dst, words)?);
        let exps = d.span("exps", self.exps, self.ci)?;
        dst.apart_from(&[src])?;
        exps.apart_from(&[src, dst])
    }

    #[cfg(target_arch = "arm")]
    fn run(&self, dtcm: &mut [u32]) {
        let (ci, co) = (self.ci, self.co);
        // Without channels there is nothing at the taps, whose number may be absurd.
        let taps = if ci == 0 || co == 0 { 0 } else { self.kh * self.kw };
        for c in 0..ci {
            let src = Lines { start: self.src + 4 * c * co, line: 4 * ci * co, step: 4 };
            // Both axes of the taps are reversed: the last tap comes first.
            let last = self.dst + 4 * c + 4 * ci * co * taps.wrapping_sub(1);
            let dst = Lines { start: last, line: (4 * ci * co).wrapping_neg(), step: 4 * ci };
            align_block(dtcm, src, dst, [taps, co], self.exps + 4 * c);
        }
    }

    #[cfg(not(target_arch = "arm"))]
    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        let (ci, co) = (self.ci as usize, self.co as usize);
        let words = self.kernel_words() as usize;
        let taps = if words == 0 { 0 } else { words / (ci * co) };
        let src = dtcm::words(dtcm, self.src, words);
        let dst = dtcm::words(dtcm, self.dst, words);
        let exps = dtcm::words(dtcm, self.exps, ci);
        let mut row = [0; COLUMNS];
        for c in 0..ci {
            let of = |tap: usize| &src[(tap * ci + c) * co..][..co];
            let e = block_exponent((0..taps).map(|t| largest(of(t))).max().unwrap_or(0));
            exps[c].set(e as u32);
            for t in 0..taps {
                // Both axes of the taps are reversed: the last tap comes first.
                let dst = &dst[(taps - 1 - t) * co * ci + c..];
                for (i, x) in of(t).chunks(COLUMNS).enumerate() {
                    align(x, e, &dtcm::cells(&mut row)[..x.len()]);
                    for (j, m) in row[..x.len()].iter().enumerate() {
                        dst[(i * COLUMNS + j) * ci].set(*m);
                    }
                }
            }
        }
    }

    fn cycles(&self) -> u64 {
        cost::prep_conv_backward(self)
    }
}

impl PrepWindow {
    /// Rows that exist, counted from `first`.
    pub(crate) fn held(&self) -> (u32, u32) {
        let first = i64::from(self.first);
        let (from, to) = (first.max(0), (first + i64::from(self.rows)).min(self.limit.into()));
        if from >= to { (0, 0) } else { ((from - first) as u32, (to - first) as u32) }
    }
    #[cfg(not(target_arch = "arm"))]
    fn align(&self, dtcm: &[Cell<u32>], span: Span) {
        let x = dtcm::part(dtcm, span.start() as usize, (span.end() - span.start()) as usize);
        let e = block_exponent(largest(x));
        dtcm[self.exp as usize / 4].set(e as u32);
        align(x, e, x);
    }
    fn span(&self, d: &Bounds) -> Result<Span, BadCall> {
        let (from, to) = self.held();
        let word = |row: u32| dtcm::row_offset(row.into(), 0, self.row_words);
        d.part("x", self.x, word(from), word(to))
    }
}

impl Kernel for PrepWindow {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let d = Bounds { words: dtcm_words };
        d.span("exp", self.exp, 1)?.apart_from(&[self.span(&d)?])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let bounds = Bounds { words: dtcm.len() };
        let Ok(span) = self.span(&bounds) else { return };
        #[cfg(target_arch = "arm")]
        {
            let x = Lines { start: 4 * span.start(), line: 0, step: 4 };
            align_block(dtcm, x, x, [1, span.end() - span.start()], self.exp);
        }
        #[cfg(not(target_arch = "arm"))]
        self.align(dtcm::cells(dtcm), span);
    }

    fn cycles(&self) -> u64 {
        cost::prep_window(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::product::Level;
    use crate::block::test_data::{Mantissas, same};
    use proptest::prelude::*;

    /// The definition, element by element, on a copy of the source.
    fn reference(call: &Prep2d, dtcm: &mut [u32]) {
        let before = dtcm.to_vec();
        let at = |r: u32, c: u32| before[(call.src / 4 + r * call.src_stride + c) as usize];
        for r in 0..call.rows {
            for c in 0..call.cols {
                let share = |q: u32, d: u32| match call.axis {
                    0 => true,
                    1 => q == r,
                    _ => d == c,
                };
                let mut most = 0;
                for q in 0..call.rows {
                    for d in 0..call.cols {
                        if share(q, d) {
                            most = most.max(at(q, d) & 0x7FFF_FFFF);
                        }
                    }
                }
                let e = block_exponent(most);
                dtcm[call.exps as usize / 4 + [0, r, c][call.axis as usize] as usize] = e as u32;
                dtcm[(call.dst / 4 + r * call.dst_row_stride + c * call.dst_col_stride) as usize] =
                    mantissa(at(r, c), e) as u32;
            }
        }
    }

    proptest! {
        #[test]
        fn matrices_agree(
            rows in 1u32..12, cols in 1u32..20, wide in prop::bool::weighted(0.1), pad in 0u32..3, axis in 0u32..3, place in 0u32..3,
            special: bool, seed: u64,
        ) {
            let cols = if wide { cols + 125 } else { cols };
            let rows = if wide { rows.min(3) } else { rows };
            let stride = cols + pad;
            let (dst, dst_row_stride, dst_col_stride) = match place {
                0 => (4, stride, 1),
                1 => (4 * 700, stride, 1),
                _ => (4 * 700, 1, rows + pad),
            };
            let call = Prep2d { src: 4, rows, cols, src_stride: stride, dst, dst_row_stride, dst_col_stride, exps: 4 * 1500, axis };
            let mut data = Mantissas::new(seed);
            let mut dtcm: Vec<u32> = (0..1700).map(|_| data.number(special)).collect();
            let mut expected = dtcm.clone();
            call.check(dtcm.len()).unwrap();
            reference(&call, &mut expected);
            call.run(&mut dtcm);
            same(&expected, &dtcm, Level::detect())?;
        }

        #[test]
        fn kernels_are_turned(kh in 1u32..4, kw in 1u32..4, ci in 1u32..5, co in 1u32..20, seed: u64) {
            let call = PrepConvBackward { src: 0, dst: 4 * 1000, exps: 4 * 2000, kh, kw, ci, co };
            let mut data = Mantissas::new(seed);
            let mut dtcm: Vec<u32> = (0..2100).map(|_| data.number(false)).collect();
            let before = dtcm.clone();
            call.check(dtcm.len()).unwrap();
            call.run(&mut dtcm);
            let src = |ky: u32, kx: u32, i: u32, o: u32| before[(((ky * kw + kx) * ci + i) * co + o) as usize];
            for i in 0..ci {
                let taps = || (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx)));
                let most = taps().flat_map(|(ky, kx)| (0..co).map(move |o| src(ky, kx, i, o) & 0x7FFF_FFFF)).max().unwrap();
                let e = block_exponent(most);
                prop_assert_eq!(dtcm[2000 + i as usize], e as u32);
                for (ky, kx) in taps() {
                    for o in 0..co {
                        let at = 1000 + ((((kh - 1 - ky) * kw + kw - 1 - kx) * co + o) * ci + i) as usize;
                        prop_assert_eq!(dtcm[at], mantissa(src(ky, kx, i, o), e) as u32);
                    }
                }
            }
        }

        #[test]
        fn windows_touch_only_rows_that_exist(first in -4i32..8, rows in 0u32..9, limit in 0u32..8, row_words in 0u32..21, seed: u64) {
            let call = PrepWindow { x: 8, first, rows, limit, row_words, exp: 0 };
            let mut data = Mantissas::new(seed);
            let mut dtcm: Vec<u32> = (0..200).map(|_| data.number(true)).collect();
            let mut expected = dtcm.clone();
            let mut held = Vec::new();
            for r in first..first + rows as i32 {
                if r >= 0 && r < limit as i32 {
                    held.extend((0..row_words).map(|i| (2 + (r - first) as u32 * row_words + i) as usize));
                }
            }
            let e = block_exponent(held.iter().map(|&i| dtcm[i] & 0x7FFF_FFFF).max().unwrap_or(0));
            expected[0] = e as u32;
            for &i in &held {
                expected[i] = mantissa(dtcm[i], e) as u32;
            }
            call.check(dtcm.len()).unwrap();
            call.run(&mut dtcm);
            same(&expected, &dtcm, Level::detect())?;
        }

        #[test]
        fn kernels_without_words_are_left_alone(huge in (1u32 << 20)..u32::MAX) {
            let call = PrepConvBackward { src: 0, dst: 40, exps: 0, kh: huge, kw: huge, ci: 64, co: 0 };
            let mut dtcm = vec![3; 300];
            call.check(dtcm.len()).unwrap();
            call.run(&mut dtcm);
            call.cycles();
        }

        #[test]
        fn no_accepted_call_panics(words in prop::collection::vec(prop_oneof![0u32..6, 0u32..80, any::<u32>()], 40)) {
            for number in [1, 2, 3, 4, 5, 29, 15, 16] {
                let count = crate::call::CALL_WORDS_MAX;
                let count = (0..=count).find(|&n| crate::KernelCall::decode(number, &words[..n]).is_ok()).unwrap();
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
