//! Products of halves, finished to bytes.

#[cfg(not(target_arch = "arm"))]
use core::cell::Cell;

use super::{SHIFT_MAX, check_shift, check_zero, cost};
#[cfg(not(target_arch = "arm"))]
use super::{saturate, set_byte, shift_rounding};
use crate::Kernel;
#[cfg(not(target_arch = "arm"))]
use crate::call::PANEL_COLUMNS;
use crate::call::{BYTE_TERMS_MAX, Product8};
use crate::dtcm::{self, BadCall, Bounds, Span, times};

#[cfg(not(target_arch = "arm"))]
const PANEL: usize = PANEL_COLUMNS as usize;

impl Product8 {
    fn is_empty(&self) -> bool {
        self.rows == 0 || self.pixels == 0 || self.n == 0
    }

    /// Pairs of terms of a sum.
    pub(super) fn pairs(&self) -> u32 {
        times(self.segments, self.terms) / 2
    }

    /// Words of operands from the first pixel's first to the last one's last.
    fn operands(&self, d: &Bounds, field: &'static str, address: u32) -> Result<Span, BadCall> {
        let steps = |count: u32, step: u32| times(count.saturating_sub(1), step);
        let last = steps(self.rows, self.x_row)
            .saturating_add(steps(self.pixels, self.x_pixel))
            .saturating_add(steps(self.segments, self.x_segment));
        d.span(field, address, (last / 2).saturating_add(self.terms / 2))
    }

    /// Words of the results.
    fn results(&self, d: &Bounds) -> Result<Span, BadCall> {
        let last = times(self.rows - 1, self.y_row);
        let bytes = last.saturating_add(times(self.pixels - 1, self.y_pixel));
        d.span("y", self.y, bytes.saturating_add(self.n).div_ceil(4))
    }

    /// Whether results lie beside each other, so that their number has a bound and their order does not matter.
    fn results_are_apart(&self) -> bool {
        let row = times(self.pixels - 1, self.y_pixel).saturating_add(self.n);
        (self.pixels == 1 || self.y_pixel >= self.n) && (self.rows == 1 || self.y_row >= row)
    }

    /// A sum as a byte.
    #[cfg(not(target_arch = "arm"))]
    fn finish(&self, sum: i32, multiplier: i32) -> u32 {
        let high = ((i64::from(sum) * i64::from(multiplier as i16)) >> 16) as i32;
        saturate(shift_rounding(high, self.shift).wrapping_add(self.zero as i32))
    }

    /// Words of a pixel's operands: those of pixels at odd halves are in the copy.
    #[cfg(not(target_arch = "arm"))]
    fn first_word(&self, row: u32, pixel: u32) -> usize {
        let half = u64::from(row) * u64::from(self.x_row) + u64::from(pixel) * u64::from(self.x_pixel);
        let base = if half.is_multiple_of(2) { self.x } else { self.x_odd };
        base as usize / 4 + (half / 2) as usize
    }

    /// Sums of a panel of `W` columns for pixels whose operands begin at these words.
    #[cfg(not(target_arch = "arm"))]
    fn sums<const W: usize, const P: usize>(
        &self,
        dtcm: &[Cell<u32>],
        w: &[Cell<u32>],
        at: [usize; P],
    ) -> [[i32; W]; P] {
        let mut sums = [[0i32; W]; P];
        let (terms, step) = (self.terms as usize / 2, self.x_segment as usize / 2);
        for s in 0..self.segments as usize {
            let x: [&[Cell<u32>]; P] = at.map(|at| &dtcm[at + s * step..][..terms]);
            let w = &w[s * terms * W..][..terms * W];
            #[cfg(target_arch = "x86_64")]
            if W == PANEL {
                x86::add_panel(&x, w, &mut sums);
                continue;
            }
            for (t, w) in w.chunks_exact(W).enumerate() {
                for p in 0..P {
                    let x = x[p][t].get();
                    for j in 0..W {
                        sums[p][j] = sums[p][j].wrapping_add(dot(x, w[j].get()));
                    }
                }
            }
        }
        sums
    }

    /// A panel of `W` columns from column `j0` on.
    #[cfg(not(target_arch = "arm"))]
    fn panel<const W: usize>(&self, dtcm: &[Cell<u32>], j0: usize) {
        let pairs = self.pairs() as usize;
        let w = dtcm::words(dtcm, self.w, pairs * (j0 + W));
        let w = w.get(pairs * j0..).unwrap_or_default();
        let scales = &dtcm::words(dtcm, self.scales, 2 * (j0 + W))[2 * j0..];
        let y = &dtcm[self.y as usize / 4..];
        let finish = |row: u32, pixel: u32, sums: [i32; W]| {
            let at = row as usize * self.y_row as usize + pixel as usize * self.y_pixel as usize + j0;
            for j in 0..W {
                let sum = sums[j].wrapping_add(scales[j].get() as i32);
                set_byte(y, at + j, self.finish(sum, scales[W + j].get() as i32));
            }
        };
        for row in 0..self.rows {
            let mut pixel = 0;
            while pixel < self.pixels {
                const TOGETHER: u32 = 4;
                if self.pixels - pixel >= TOGETHER {
                    let at = [0, 1, 2, 3].map(|p| self.first_word(row, pixel + p));
                    for (p, sums) in (0..).zip(self.sums::<W, 4>(dtcm, w, at)) {
                        finish(row, pixel + p, sums);
                    }
                    pixel += TOGETHER;
                } else {
                    let [sums] = self.sums::<W, 1>(dtcm, w, [self.first_word(row, pixel)]);
                    finish(row, pixel, sums);
                    pixel += 1;
                }
            }
        }
    }

    /// The definition, one operation after the other.
    #[cfg(test)]
    fn run_scalar(&self, dtcm: &[Cell<u32>]) {
        let pairs = self.pairs() as usize;
        for row in 0..self.rows {
            for pixel in 0..self.pixels {
                for j in 0..self.n as usize {
                    let j0 = j / PANEL * PANEL;
                    let width = PANEL.min(self.n as usize - j0);
                    let scales = &dtcm[self.scales as usize / 4 + 2 * j0 + j - j0..];
                    let mut sum = scales[0].get() as i32;
                    for s in 0..self.segments as usize {
                        for t in 0..self.terms as usize {
                            let x =
                                super::half(&dtcm[self.first_word(row, pixel) + s * self.x_segment as usize / 2..], t);
                            let term = s * self.terms as usize + t;
                            let word = dtcm[self.w as usize / 4 + pairs * j0 + term / 2 * width + j - j0].get();
                            let w = i32::from((word >> (16 * (term % 2))) as i16);
                            sum = sum.wrapping_add(x.wrapping_mul(w));
                        }
                    }
                    let at = row as usize * self.y_row as usize + pixel as usize * self.y_pixel as usize + j;
                    set_byte(&dtcm[self.y as usize / 4..], at, self.finish(sum, scales[width].get() as i32));
                }
            }
        }
    }
}

/// Products of both halves of two words, added.
#[cfg(not(target_arch = "arm"))]
#[inline(always)]
fn dot(x: u32, w: u32) -> i32 {
    let low = i32::from(x as i16) * i32::from(w as i16);
    let high = i32::from((x >> 16) as i16) * i32::from((w >> 16) as i16);
    low.wrapping_add(high)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;
    use core::cell::Cell;

    /// Adds a segment's products with a panel of four columns. (SSE2 is part of the architecture.)
    pub fn add_panel<const W: usize, const P: usize>(x: &[&[Cell<u32>]; P], w: &[Cell<u32>], sums: &mut [[i32; W]; P]) {
        let terms = w.len() / 4;
        assert!(W == 4 && x.iter().all(|x| x.len() >= terms));
        // SAFETY: `W` is 4, so a row of sums has 16 bytes; words `4 t ..` of `w` and word `t` of each `x` exist, as asserted.
        unsafe {
            let mut all: [__m128i; P] = core::array::from_fn(|p| _mm_loadu_si128(sums[p].as_ptr().cast()));
            for t in 0..terms {
                let panel = _mm_loadu_si128(w.as_ptr().add(4 * t).cast());
                for p in 0..P {
                    let pair = _mm_set1_epi32(x[p].get_unchecked(t).get() as i32);
                    all[p] = _mm_add_epi32(all[p], _mm_madd_epi16(pair, panel));
                }
            }
            for p in 0..P {
                _mm_storeu_si128(sums[p].as_mut_ptr().cast(), all[p]);
            }
        }
    }
}

impl Kernel for Product8 {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_zero("zero", self.zero)?;
        check_shift(self.shift, SHIFT_MAX)?;
        for (field, value) in [("terms", self.terms), ("x_row", self.x_row), ("x_segment", self.x_segment)] {
            if !value.is_multiple_of(2) {
                return Err(BadCall::value(field, value));
            }
        }
        if self.is_empty() {
            return Ok(());
        }
        // Sums of nothing.
        dtcm::nonzero("segments", self.segments)?;
        dtcm::nonzero("terms", self.terms)?;
        let terms = times(self.segments, self.terms);
        if terms > BYTE_TERMS_MAX {
            return Err(BadCall::too_many_terms(terms));
        }
        if !self.results_are_apart() {
            return Err(BadCall::value("y_pixel", self.y_pixel));
        }
        let d = Bounds { words: dtcm_words };
        let y = self.results(&d)?;
        let x = self.operands(&d, "x", self.x)?;
        if self.x_pixel % 2 == 1 && self.pixels > 1 {
            y.apart_from(&[self.operands(&d, "x_odd", self.x_odd)?])?;
        }
        let w = d.span("w", self.w, times(self.pairs(), self.n))?;
        y.apart_from(&[x, w, d.span("scales", self.scales, times(2, self.n))?])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        if self.is_empty() {
            return;
        }
        let dtcm = dtcm::cells(dtcm);
        #[cfg(target_arch = "arm")]
        return crate::arm::int8::product8(self, dtcm);
        #[cfg(not(target_arch = "arm"))]
        self.run_portable(dtcm);
    }

    fn cycles(&self) -> u64 {
        cost::product8(self)
    }
}

#[cfg(not(target_arch = "arm"))]
impl Product8 {
    fn run_portable(&self, dtcm: &[Cell<u32>]) {
        let n = self.n as usize;
        for j0 in (0..n).step_by(PANEL) {
            match n - j0 {
                1 => self.panel::<1>(dtcm, j0),
                2 => self.panel::<2>(dtcm, j0),
                3 => self.panel::<3>(dtcm, j0),
                _ => self.panel::<4>(dtcm, j0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::test_data::Mantissas;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn vectors_and_scalars_agree(
            (rows, pixels, n) in (0u32..4, 0u32..12, 0u32..14),
            (segments, pairs, x_pixel, extra) in (1u32..4, 1u32..9, 0u32..7, 0u32..3),
            (shift, zero, apart, seed) in (1u32..20, 0u32..256, 0u32..3, any::<u64>()),
        ) {
            let row = (pixels * x_pixel + 2 * pairs).next_multiple_of(2) + 2 * extra;
            let call = Product8 {
                x: 0, x_odd: 4 * 1500, x_row: row, x_pixel, x_segment: row, segments, terms: 2 * pairs, w: 4 * 3000, scales: 4 * 5000, shift, zero,
                y: 4 * 5100, y_row: pixels * (n + apart) + extra, y_pixel: n + apart, rows, pixels, n,
            };
            let mut data = Mantissas::new(seed);
            let mut dtcm: Vec<u32> = (0..6000).map(|_| data.next() as u32).collect();
            call.check(dtcm.len()).unwrap();
            let mut expected = dtcm.clone();
            call.run_scalar(dtcm::cells(&mut expected));
            call.run(&mut dtcm);
            prop_assert_eq!(dtcm, expected);
            call.cycles();
        }

        #[test]
        fn no_accepted_call_panics(words in prop::collection::vec(prop_oneof![0u32..6, 0u32..80, any::<u32>()], 20)) {
            for number in 40..48 {
                for count in 0..=20 {
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
    fn sums_round_half_up_and_saturate() {
        let call = Product8 { shift: 4, zero: 100, ..Default::default() };
        // 2^15 * 2^14 / 2^16 / 2^4 = 512 / ..
        for (sum, expected) in
            [(0, 100), (31, 100), (32, 101), (-32, 100), (-33, 99), (96, 102), (10_000, 255), (-10_000, 0)]
        {
            assert_eq!(call.finish(sum, 1 << 14), expected, "{sum}");
        }
        assert_eq!(call.finish(i32::MIN, i32::from(i16::MIN)), 255);
        assert_eq!(call.finish(i32::MIN, i32::from(i16::MAX)), 0);
    }

    #[test]
    fn a_product_by_hand() {
        // Two pixels of an odd step over (1, 2, 3), weights 10 and 20 and a pad: 50, 80; multiplier 1/2.
        let mut dtcm = vec![0; 12];
        (dtcm[0], dtcm[1]) = (1 | 2 << 16, 3);
        (dtcm[2], dtcm[3]) = (2 | 3 << 16, 0);
        dtcm[4] = 10 | 20 << 16;
        (dtcm[5], dtcm[6]) = (1, 1 << 14);
        let call = Product8 {
            x: 0,
            x_odd: 8,
            x_row: 4,
            x_pixel: 1,
            x_segment: 0,
            segments: 1,
            terms: 2,
            w: 16,
            scales: 20,
            shift: 1,
            zero: 7,
            y: 28,
            y_row: 4,
            y_pixel: 1,
            rows: 1,
            pixels: 2,
            n: 1,
        };
        call.check(12).unwrap();
        call.run(&mut dtcm);
        // (51 / 4, rounded down, halved, rounded) + 7; (81 / 4 -> 20) / 2 + 7.
        assert_eq!(dtcm[7], 13 | 17 << 8);
    }
}
