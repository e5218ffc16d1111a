//! Matrix product.

use core::cell::Cell;

use super::round::{self, Operands};
use crate::call::{BLOCK_TERMS_MAX, Gemm};
use crate::dtcm::{self, BadCall, Bounds};
use crate::{Kernel, cost};

impl Gemm {
    pub(super) fn is_empty(&self) -> bool {
        self.m == 0 || self.n == 0
    }

    /// The definition, one integer operation after the other.
    #[cfg_attr(any(feature = "std", target_arch = "arm"), allow(dead_code))]
    fn run_scalar(&self, dtcm: &[Cell<u32>], operands: Operands) {
        let word = |base: u32, offset: usize| &dtcm[base as usize / 4 + offset];
        for i in 0..self.m as usize {
            for j in 0..self.n as usize {
                let mut sum = 0i64;
                for k in 0..self.k as usize {
                    let a = word(self.a, i * self.a_stride as usize + k).get();
                    let b = word(self.b, k * self.b_stride as usize + j).get();
                    sum = sum.wrapping_add(operands.multiply(a, b));
                }
                let (a_exp, b_exp) = (word(self.a_exps, i).get() as i32, word(self.b_exps, j).get() as i32);
                let value = round::product(sum, operands.exponent(a_exp), b_exp);
                let c = word(self.c, i * self.c_stride as usize + j);
                c.set(if self.accumulate != 0 { round::add(c.get(), value) } else { value });
            }
        }
    }

    #[cfg(target_arch = "arm")]
    fn run_arm(&self, dtcm: &[Cell<u32>], operands: Operands) {
        use crate::arm::{self, ProductRows};
        let mut rows = ProductRows {
            a_step: 4,
            b_step: 4 * self.b_stride,
            terms: self.k,
            segments: (self.k > 0).into(),
            x_count: 1,
            a_x: 0,
            b_x: 0,
            a_y: 0,
            b_y: 0,
            a_exp: 0,
            accumulate: self.accumulate,
            b_exps_step: 4,
            a: arm::address(dtcm, self.a),
            c: arm::address(dtcm, self.c),
            b_exps: arm::address(dtcm, self.b_exps),
            columns: self.n,
            b: arm::address(dtcm, self.b),
            rows: self.m,
            a_next: 4 * self.a_stride,
            c_next: 4 * self.c_stride,
            a_exps: arm::address(dtcm, self.a_exps),
            a_exps_step: 4,
        };
        // SAFETY: the call was checked.
        unsafe { rows.run(operands) }
    }

    #[cfg(any(test, feature = "std"))]
    fn run_at(&self, dtcm: &[Cell<u32>], operands: Operands, level: super::product::Level) {
        use super::product::{Product, Row, Segment};
        let from = |address: u32| &dtcm[(address as usize / 4).min(dtcm.len())..];
        let (a_stride, c_stride) = (self.a_stride as usize, self.c_stride as usize);
        let rows: Vec<Row> = (0..self.m as usize).map(|i| Row { a: i * a_stride, c: i * c_stride }).collect();
        Product {
            operands,
            a: from(self.a),
            a_step: 1,
            a_exps: dtcm::words(dtcm, self.a_exps, self.m as usize),
            rows: &rows,
            segments: &[Segment { a: 0, b: 0, terms: self.k as usize }],
            b: from(self.b),
            b_stride: self.b_stride as usize,
            b_exps: dtcm::words(dtcm, self.b_exps, self.n as usize),
            n: self.n as usize,
            c: from(self.c),
            accumulate: self.accumulate != 0,
        }
        .run(level);
    }
}

impl Kernel for Gemm {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        if self.k > BLOCK_TERMS_MAX {
            return Err(BadCall::too_many_terms(self.k));
        }
        if self.is_empty() {
            return Ok(());
        }
        let d = Bounds { words: dtcm_words };
        let c = d.rows("c", self.c, self.m, self.n, self.c_stride)?;
        c.apart_from(&[
            d.rows("a", self.a, self.m, self.k, self.a_stride)?,
            d.rows("b", self.b, self.k, self.n, self.b_stride)?,
            d.span("a_exps", self.a_exps, self.m)?,
            d.span("b_exps", self.b_exps, self.n)?,
        ])?;
        // Rows on top of each other would make the order of the results matter, and their number unbounded.
        if self.m > 1 && self.c_stride < self.n { Err(BadCall::value("c_stride", self.c_stride)) } else { Ok(()) }
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        if self.is_empty() {
            return;
        }
        self.run_on(dtcm::cells(dtcm), Operands::Mantissas);
    }

    fn cycles(&self) -> u64 {
        cost::gemm(self, Operands::Mantissas)
    }
}

impl Gemm {
    /// As fast as the host can; for a call that was checked and is not empty.
    pub(super) fn run_on(&self, dtcm: &[Cell<u32>], operands: Operands) {
        #[cfg(any(test, feature = "std"))]
        self.run_at(dtcm, operands, super::product::Level::detect());
        #[cfg(target_arch = "arm")]
        self.run_arm(dtcm, operands);
        #[cfg(not(any(test, feature = "std", target_arch = "arm")))]
        self.run_scalar(dtcm, operands);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::product::Level;
    use crate::block::test_data::{Mantissas, same};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vectors_and_scalars_agree(
            m in 0u32..20, k in 0u32..40, n in 0u32..38, pad in 0u32..3, accumulate in 0u32..2, halves: bool, seed: u64,
        ) {
            let call = Gemm {
                a: 0, a_stride: k + pad, b: 4 * 1000, b_stride: n + pad, c: 4 * 4000, c_stride: n + pad,
                a_exps: 4 * 6000, b_exps: 4 * 6050, m, k, n, accumulate,
            };
            let mut data = Mantissas::new(seed);
            let mut dtcm = vec![0; 6100];
            let operands = if halves { Operands::Halves } else { Operands::Mantissas };
            data.operands(operands, &mut dtcm[..4000]);
            data.numbers(&mut dtcm[4000..6000]);
            data.exponents(&mut dtcm[6000..]);
            let mut expected = dtcm.clone();
            call.check(dtcm.len()).unwrap();
            call.run_scalar(dtcm::cells(&mut expected), operands);
            for level in Level::all() {
                let mut found = dtcm.clone();
                if !call.is_empty() {
                    call.run_at(dtcm::cells(&mut found), operands, level);
                }
                same(&expected, &found, level)?;
            }
        }
    }

    #[test]
    fn a_product_by_hand() {
        // [1 2; 3 4] x [1; 0.5] with exponent 26 (mantissas are integers) on both sides, then halved.
        let mut dtcm = vec![1, 2, 3, 4, 2, 1, 26, 26, 25, 0, 1.0f32.to_bits()];
        let call = Gemm {
            a: 0,
            a_stride: 2,
            b: 16,
            b_stride: 1,
            c: 36,
            c_stride: 1,
            a_exps: 24,
            b_exps: 32,
            m: 2,
            k: 2,
            n: 1,
            accumulate: 1,
        };
        call.run(&mut dtcm);
        assert_eq!(f32::from_bits(dtcm[9]), 2.0);
        assert_eq!(f32::from_bits(dtcm[10]), 6.0);
    }

    #[test]
    fn hostile_calls_are_refused() {
        let good = Gemm {
            a: 0,
            a_stride: 4,
            b: 64,
            b_stride: 4,
            c: 128,
            c_stride: 4,
            a_exps: 192,
            b_exps: 208,
            m: 4,
            k: 4,
            n: 4,
            accumulate: 0,
        };
        assert_eq!(good.check(56), Ok(()));
        assert!(matches!(good.check(55), Err(BadCall::OutOfBounds { field: "b_exps", .. })));
        assert!(matches!(Gemm { k: 2049, ..good }.check(56), Err(BadCall::TooManyTerms { terms: 2049 })));
        assert!(matches!(Gemm { a: 2, ..good }.check(56), Err(BadCall::Misaligned { field: "a", .. })));
        assert!(matches!(Gemm { c: 64, ..good }.check(56), Err(BadCall::Overlap { a: "c", b: "b" })));
        assert!(matches!(Gemm { a_stride: u32::MAX, m: u32::MAX, ..good }.check(56), Err(BadCall::OutOfBounds { .. })));
        assert!(matches!(Gemm { c_stride: 0, ..good }.check(56), Err(BadCall::Value { field: "c_stride", .. })));
    }
}
