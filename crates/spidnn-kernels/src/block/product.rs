//! The one inner loop of the host: a product of two sets of mantissas, where the rows of the left side
//! may lie anywhere (matrix rows, pixels of a picture, taps of a convolution).
//!
//! `c[r][j] = f32(sum over segments, t: a[rows[r] + seg.a + t * a_step] * b[seg.b + t * b_stride + j])`
//!
//! Lanes are columns `j`. The vector multiplication takes the even 32-bit lanes, so a row of `b` is
//! multiplied once as it is and once shifted down by one lane; the sums of even and odd columns meet
//! again when they are rounded.

use core::cell::Cell;

use super::round::{self, Operands};

/// Terms whose operands lie at constant steps.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Offset of the first left operand from the row's.
    pub a: usize,
    /// Offset of the first right operand.
    pub b: usize,
    /// Number of terms.
    pub terms: usize,
}

/// A row of the result: where its left operands, its exponent and its results are.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Offset in `a`.
    pub a: usize,
    /// Offset in `c`.
    pub c: usize,
}

/// A product to be computed; offsets and strides in words.
pub struct Product<'a> {
    /// What the words of both sides are.
    pub operands: Operands,
    /// Left operands.
    pub a: &'a [Cell<u32>],
    /// Step from term to term.
    pub a_step: usize,
    /// Exponents of the rows: one for each, or one for all.
    pub a_exps: &'a [Cell<u32>],
    /// Rows of the result.
    pub rows: &'a [Row],
    /// What is summed, for every row.
    pub segments: &'a [Segment],
    /// Right operands.
    pub b: &'a [Cell<u32>],
    /// Step from term to term.
    pub b_stride: usize,
    /// Exponents of the columns.
    pub b_exps: &'a [Cell<u32>],
    /// Columns.
    pub n: usize,
    /// Results.
    pub c: &'a [Cell<u32>],
    /// Whether results are added to what is there.
    pub accumulate: bool,
}

/// How the host multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Plain Rust.
    Plain,
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best that this machine has.
    pub fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512dq")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx2")
            {
                return Level::Avx512;
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                return Level::Avx2;
            }
        }
        Level::Plain
    }

    /// Every level that this machine has, for tests.
    #[cfg(test)]
    pub fn all() -> Vec<Level> {
        let best = Level::detect();
        #[cfg(target_arch = "x86_64")]
        return match best {
            Level::Avx512 => vec![Level::Plain, Level::Avx2, Level::Avx512],
            Level::Avx2 => vec![Level::Plain, Level::Avx2],
            Level::Plain => vec![Level::Plain],
        };
        #[cfg(not(target_arch = "x86_64"))]
        vec![best]
    }
}

impl Product<'_> {
    /// Every access is inside the slices: what the vector forms rely on.
    fn assert_in_bounds(&self) {
        let (mut a_end, mut b_end) = (0, 0);
        for s in self.segments.iter().filter(|s| s.terms > 0) {
            a_end = a_end.max(s.a + (s.terms - 1) * self.a_step + 1);
            b_end = b_end.max(s.b + (s.terms - 1) * self.b_stride + self.n);
        }
        let a_row = self.rows.iter().map(|r| r.a).max().unwrap_or(0);
        let c_row = self.rows.iter().map(|r| r.c).max().unwrap_or(0);
        assert!(a_end == 0 || a_row + a_end <= self.a.len(), "left operands");
        assert!(b_end <= self.b.len(), "right operands");
        assert!(c_row + self.n <= self.c.len(), "results");
        assert!(self.n <= self.b_exps.len(), "exponents of columns");
        assert!(self.a_exps.len() == 1 || self.a_exps.len() == self.rows.len(), "exponents of rows");
    }

    fn a_exponent(&self, row: usize) -> i32 {
        self.operands.exponent(self.a_exps[if self.a_exps.len() == 1 { 0 } else { row }].get() as i32)
    }

    /// Does it.
    pub fn run(&self, level: Level) {
        if self.rows.is_empty() || self.n == 0 {
            return;
        }
        self.assert_in_bounds();
        match level {
            Level::Plain => self.run_plain(),
            // SAFETY: the level was detected, and every access is in bounds.
            #[cfg(target_arch = "x86_64")]
            _ if self.operands == Operands::Halves => unsafe { self.run_halves() },
            // SAFETY: the level was detected, and every access is in bounds.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { self.run_avx2() },
            // SAFETY: as before.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { self.run_avx512() },
        }
    }

    /// Rounds one sum and stores it.
    fn finish(&self, row: usize, column: usize, sum: i64) {
        let value = round::product_native(sum, self.a_exponent(row), self.b_exps[column].get() as i32);
        let c = &self.c[self.rows[row].c + column];
        c.set(if self.accumulate { round::add(c.get(), value) } else { value });
    }

    fn run_plain(&self) {
        const COLUMNS: usize = 8;
        for (r, row) in self.rows.iter().enumerate() {
            for j0 in (0..self.n).step_by(COLUMNS) {
                let width = COLUMNS.min(self.n - j0);
                let mut sums = [0i64; COLUMNS];
                for s in self.segments {
                    for t in 0..s.terms {
                        let a = self.a[row.a + s.a + t * self.a_step].get();
                        let b = &self.b[s.b + t * self.b_stride + j0..][..width];
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = sum.wrapping_add(self.operands.multiply(a, b.get()));
                        }
                    }
                }
                for j in 0..width {
                    self.finish(r, j0 + j, sums[j]);
                }
            }
        }
    }
}

/// Calls a vector form with as many rows as there are, at most `$max` at a time, in parts of similar size.
#[cfg(target_arch = "x86_64")]
macro_rules! in_tiles {
    ($rows:expr, $max:literal, |$first:ident, $count:ident| $body:expr) => {{
        let rows: usize = $rows;
        let tiles = rows.div_ceil($max);
        let (each, more) = (rows / tiles, rows % tiles);
        let mut $first = 0;
        for tile in 0..tiles {
            let $count = each + usize::from(tile < more);
            $body;
            $first += $count;
        }
    }};
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Product, round};
    use crate::call::EXPONENT_NAN;
    use core::arch::x86_64::*;

    impl Product<'_> {
        fn a_pointers<const R: usize>(&self, row0: usize) -> [*const i32; R] {
            let base = self.a.as_ptr().cast::<i32>();
            // `wrapping_add`: with no terms a row may lie outside, and is never read.
            core::array::from_fn(|r| base.wrapping_add(self.rows[row0 + r].a))
        }

        /// Products of halves.
        ///
        /// # Safety
        /// AVX2; bounds asserted.
        #[target_feature(enable = "avx2")]
        pub(super) unsafe fn run_halves(&self) {
            for j0 in (0..self.n).step_by(8) {
                in_tiles!(self.rows.len(), 6, |r0, count| {
                    // SAFETY: rows `r0 .. r0 + count` exist, columns from `j0 < n` on.
                    unsafe {
                        match count {
                            1 => self.tile_halves::<1>(r0, j0),
                            2 => self.tile_halves::<2>(r0, j0),
                            3 => self.tile_halves::<3>(r0, j0),
                            4 => self.tile_halves::<4>(r0, j0),
                            5 => self.tile_halves::<5>(r0, j0),
                            _ => self.tile_halves::<6>(r0, j0),
                        }
                    }
                });
            }
        }

        /// `R` rows by up to 8 columns. The sum of two products fits 32 bits; its low half, without sign, and its high half are summed apart, which
        /// at most [`crate::call::BLOCK_TERMS_MAX`] words allow.
        ///
        /// # Safety
        /// AVX2; `r0 + R` rows, `j0 < n`, bounds asserted.
        #[target_feature(enable = "avx2")]
        unsafe fn tile_halves<const R: usize>(&self, r0: usize, j0: usize) {
            let width = (self.n - j0).min(8);
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(width as i32), lanes);
            let low_half = _mm256_set1_epi32(0xFFFF);
            let a = self.a_pointers::<R>(r0);
            let b = self.b.as_ptr().cast::<i32>();
            let mut low = [_mm256_setzero_si256(); R];
            let mut high = [_mm256_setzero_si256(); R];
            for s in self.segments {
                let (mut at_a, mut at_b) = (s.a, s.b + j0);
                for _ in 0..s.terms {
                    // SAFETY: asserted; masked lanes are not read.
                    let v = unsafe { _mm256_maskload_epi32(b.add(at_b), mask) };
                    for r in 0..R {
                        // SAFETY: asserted.
                        let x = _mm256_set1_epi32(unsafe { a[r].add(at_a).read() });
                        let p = _mm256_madd_epi16(x, v);
                        low[r] = _mm256_add_epi32(low[r], _mm256_and_si256(p, low_half));
                        high[r] = _mm256_add_epi32(high[r], _mm256_srai_epi32(p, 16));
                    }
                    at_a += self.a_step;
                    at_b += self.b_stride;
                }
            }
            for r in 0..R {
                let mut sums = ([0u32; 8], [0i32; 8]);
                // SAFETY: the arrays hold 32 bytes each.
                unsafe {
                    _mm256_storeu_si256(sums.0.as_mut_ptr().cast(), low[r]);
                    _mm256_storeu_si256(sums.1.as_mut_ptr().cast(), high[r]);
                }
                for j in 0..width {
                    self.finish(r0 + r, j0 + j, i64::from(sums.0[j]) + (i64::from(sums.1[j]) << 16));
                }
            }
        }

        /// # Safety
        /// AVX2; bounds asserted.
        #[target_feature(enable = "avx2")]
        pub(super) unsafe fn run_avx2(&self) {
            for j0 in (0..self.n).step_by(8) {
                in_tiles!(self.rows.len(), 6, |r0, count| {
                    // SAFETY: rows `r0 .. r0 + count` exist, columns from `j0 < n` on.
                    unsafe {
                        match count {
                            1 => self.tile_avx2::<1>(r0, j0),
                            2 => self.tile_avx2::<2>(r0, j0),
                            3 => self.tile_avx2::<3>(r0, j0),
                            4 => self.tile_avx2::<4>(r0, j0),
                            5 => self.tile_avx2::<5>(r0, j0),
                            _ => self.tile_avx2::<6>(r0, j0),
                        }
                    }
                });
            }
        }

        /// `R` rows by up to 8 columns.
        ///
        /// # Safety
        /// AVX2; `r0 + R` rows, `j0 < n`, bounds asserted.
        #[target_feature(enable = "avx2")]
        unsafe fn tile_avx2<const R: usize>(&self, r0: usize, j0: usize) {
            let width = (self.n - j0).min(8);
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(width as i32), lanes);
            let a = self.a_pointers::<R>(r0);
            let b = self.b.as_ptr().cast::<i32>();
            let mut even = [_mm256_setzero_si256(); R];
            let mut odd = [_mm256_setzero_si256(); R];
            for s in self.segments {
                let (mut at_a, mut at_b) = (s.a, s.b + j0);
                for _ in 0..s.terms {
                    // SAFETY: asserted; masked lanes are not read.
                    let v = unsafe { _mm256_maskload_epi32(b.add(at_b), mask) };
                    let w = _mm256_srli_epi64(v, 32);
                    for r in 0..R {
                        // SAFETY: asserted.
                        let x = _mm256_set1_epi32(unsafe { a[r].add(at_a).read() });
                        even[r] = _mm256_add_epi64(even[r], _mm256_mul_epi32(x, v));
                        odd[r] = _mm256_add_epi64(odd[r], _mm256_mul_epi32(x, w));
                    }
                    at_a += self.a_step;
                    at_b += self.b_stride;
                }
            }
            for r in 0..R {
                let mut sums = [[0i64; 4]; 2];
                // SAFETY: the arrays hold 32 bytes each.
                unsafe {
                    _mm256_storeu_si256(sums[0].as_mut_ptr().cast(), even[r]);
                    _mm256_storeu_si256(sums[1].as_mut_ptr().cast(), odd[r]);
                }
                for j in 0..width {
                    self.finish(r0 + r, j0 + j, sums[j % 2][j / 2]);
                }
            }
        }

        /// # Safety
        /// AVX-512 F, DQ, VL; bounds asserted.
        #[target_feature(enable = "avx2,avx512f,avx512dq,avx512vl")]
        pub(super) unsafe fn run_avx512(&self) {
            let mut j0 = 0;
            while j0 < self.n {
                // 16 columns cost twice the multiplications of 8.
                let wide = self.n - j0 > 8;
                in_tiles!(self.rows.len(), 8, |r0, count| {
                    // SAFETY: rows `r0 .. r0 + count` exist, columns from `j0 < n` on.
                    unsafe {
                        match (wide, count) {
                            (true, 1) => self.tile16::<1>(r0, j0),
                            (true, 2) => self.tile16::<2>(r0, j0),
                            (true, 3) => self.tile16::<3>(r0, j0),
                            (true, 4) => self.tile16::<4>(r0, j0),
                            (true, 5) => self.tile16::<5>(r0, j0),
                            (true, 6) => self.tile16::<6>(r0, j0),
                            (true, 7) => self.tile16::<7>(r0, j0),
                            (true, _) => self.tile16::<8>(r0, j0),
                            (false, 1) => self.tile8::<1>(r0, j0),
                            (false, 2) => self.tile8::<2>(r0, j0),
                            (false, 3) => self.tile8::<3>(r0, j0),
                            (false, 4) => self.tile8::<4>(r0, j0),
                            (false, 5) => self.tile8::<5>(r0, j0),
                            (false, 6) => self.tile8::<6>(r0, j0),
                            (false, 7) => self.tile8::<7>(r0, j0),
                            (false, _) => self.tile8::<8>(r0, j0),
                        }
                    }
                });
                j0 += if wide { 16 } else { 8 };
            }
        }

        /// `R` rows by up to 16 columns.
        ///
        /// # Safety
        /// AVX-512 F, DQ, VL; `r0 + R` rows, `j0 < n`, bounds asserted.
        #[target_feature(enable = "avx2,avx512f,avx512dq,avx512vl")]
        unsafe fn tile16<const R: usize>(&self, r0: usize, j0: usize) {
            let width = (self.n - j0).min(16);
            let mask = (0xFFFFu32 >> (16 - width)) as __mmask16;
            let a = self.a_pointers::<R>(r0);
            let b = self.b.as_ptr().cast::<i32>();
            let mut even = [_mm512_setzero_si512(); R];
            let mut odd = [_mm512_setzero_si512(); R];
            for s in self.segments {
                let (mut at_a, mut at_b) = (s.a, s.b + j0);
                for _ in 0..s.terms {
                    // SAFETY: asserted; masked lanes are not read.
                    let v = unsafe { _mm512_maskz_loadu_epi32(mask, b.add(at_b)) };
                    let w = _mm512_srli_epi64::<32>(v);
                    for r in 0..R {
                        // SAFETY: asserted.
                        let x = _mm512_set1_epi32(unsafe { a[r].add(at_a).read() });
                        even[r] = _mm512_add_epi64(even[r], _mm512_mul_epi32(x, v));
                        odd[r] = _mm512_add_epi64(odd[r], _mm512_mul_epi32(x, w));
                    }
                    at_a += self.a_step;
                    at_b += self.b_stride;
                }
            }
            // SAFETY: masked lanes are not read.
            let e = unsafe { _mm512_maskz_loadu_epi32(mask, self.b_exps.as_ptr().add(j0).cast()) };
            let nan = _mm512_set1_ps(f32::from_bits(round::NAN_BITS));
            let bad = _mm512_cmpeq_epi32_mask(e, _mm512_set1_epi32(EXPONENT_NAN));
            let clamped = _mm512_max_epi32(_mm512_min_epi32(e, _mm512_set1_epi32(512)), _mm512_set1_epi32(-512));
            let b_exps = _mm512_mask_blend_ps(bad, _mm512_cvtepi32_ps(clamped), nan);
            let zip = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            for r in 0..R {
                let sums = _mm512_permutex2var_ps(
                    _mm512_castps256_ps512(_mm512_cvtepi64_ps(even[r])),
                    zip,
                    _mm512_castps256_ps512(_mm512_cvtepi64_ps(odd[r])),
                );
                let scale = _mm512_add_ps(b_exps, _mm512_set1_ps(self.a_scale(r0 + r)));
                // One rounding, also into subnormals; a NaN exponent makes a NaN.
                let mut y = _mm512_scalef_ps(sums, scale);
                // SAFETY: asserted; masked lanes are neither read nor written.
                unsafe {
                    let c = self.c.as_ptr().add(self.rows[r0 + r].c + j0).cast::<f32>().cast_mut();
                    if self.accumulate {
                        y = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), y);
                    }
                    y = _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(y, y), y, nan);
                    _mm512_mask_storeu_ps(c, mask, y);
                }
            }
        }

        /// `R` rows by up to 8 columns.
        ///
        /// # Safety
        /// As [`Product::tile16`].
        #[target_feature(enable = "avx2,avx512f,avx512dq,avx512vl")]
        unsafe fn tile8<const R: usize>(&self, r0: usize, j0: usize) {
            let width = (self.n - j0).min(8);
            let mask = (0xFFu32 >> (8 - width)) as __mmask8;
            let a = self.a_pointers::<R>(r0);
            let b = self.b.as_ptr().cast::<i32>();
            let mut even = [_mm256_setzero_si256(); R];
            let mut odd = [_mm256_setzero_si256(); R];
            for s in self.segments {
                let (mut at_a, mut at_b) = (s.a, s.b + j0);
                for _ in 0..s.terms {
                    // SAFETY: asserted; masked lanes are not read.
                    let v = unsafe { _mm256_maskz_loadu_epi32(mask, b.add(at_b)) };
                    let w = _mm256_srli_epi64::<32>(v);
                    for r in 0..R {
                        // SAFETY: asserted.
                        let x = _mm256_set1_epi32(unsafe { a[r].add(at_a).read() });
                        even[r] = _mm256_add_epi64(even[r], _mm256_mul_epi32(x, v));
                        odd[r] = _mm256_add_epi64(odd[r], _mm256_mul_epi32(x, w));
                    }
                    at_a += self.a_step;
                    at_b += self.b_stride;
                }
            }
            // SAFETY: masked lanes are not read.
            let e = unsafe { _mm256_maskz_loadu_epi32(mask, self.b_exps.as_ptr().add(j0).cast()) };
            let nan = _mm256_set1_ps(f32::from_bits(round::NAN_BITS));
            let bad = _mm256_cmpeq_epi32_mask(e, _mm256_set1_epi32(EXPONENT_NAN));
            let clamped = _mm256_max_epi32(_mm256_min_epi32(e, _mm256_set1_epi32(512)), _mm256_set1_epi32(-512));
            let b_exps = _mm256_mask_blend_ps(bad, _mm256_cvtepi32_ps(clamped), nan);
            let zip = _mm256_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11);
            for r in 0..R {
                let sums = _mm256_permutex2var_ps(
                    _mm256_castps128_ps256(_mm256_cvtepi64_ps(even[r])),
                    zip,
                    _mm256_castps128_ps256(_mm256_cvtepi64_ps(odd[r])),
                );
                let scale = _mm256_add_ps(b_exps, _mm256_set1_ps(self.a_scale(r0 + r)));
                let mut y = _mm256_scalef_ps(sums, scale);
                // SAFETY: asserted; masked lanes are neither read nor written.
                unsafe {
                    let c = self.c.as_ptr().add(self.rows[r0 + r].c + j0).cast::<f32>().cast_mut();
                    if self.accumulate {
                        y = _mm256_add_ps(_mm256_maskz_loadu_ps(mask, c), y);
                    }
                    y = _mm256_mask_blend_ps(_mm256_cmp_ps_mask::<_CMP_UNORD_Q>(y, y), y, nan);
                    _mm256_mask_storeu_ps(c, mask, y);
                }
            }
        }

        /// Exponent of a row less twice the mantissas' fraction bits, as a number; NaN for a NaN block.
        fn a_scale(&self, row: usize) -> f32 {
            match self.a_exponent(row) {
                EXPONENT_NAN => f32::NAN,
                e => (e.clamp(-512, 512) - 52) as f32,
            }
        }
    }
}
