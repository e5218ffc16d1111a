//! Bytes one by one: tables, sums, and the ways from and to numbers.

use super::{byte, check_shift, check_zero, cost, saturate, set_byte, shift_rounding};
use crate::Kernel;
use crate::call::{Add8, Dequantise8, Lookup8, Quantise8};
use crate::dtcm::{self, BadCall, Bounds, Span, times};
use crate::num;

impl Kernel for Lookup8 {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let d = Bounds { words: dtcm_words };
        let out = d.span("out", self.out, self.count)?;
        out.apart_or_same(&d.span("x", self.x, self.count)?)?;
        out.apart_from(&[d.span("table", self.table, 64)?])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        if cfg!(target_arch = "arm") {
            #[cfg(target_arch = "arm")]
            crate::arm::int8::lookup(dtcm, self.x, self.out, self.count, self.table);
            return;
        }
        let table = dtcm::words(dtcm, self.table, 64);
        let count = self.count as usize;
        for (x, out) in dtcm::words(dtcm, self.x, count).iter().zip(dtcm::words(dtcm, self.out, count)) {
            out.set(u32::from_le_bytes(x.get().to_le_bytes().map(|q| byte(table, q.into()) as u8)));
        }
    }

    fn cycles(&self) -> u64 {
        cost::lookup8(self.count)
    }
}

/// Multipliers of [`Add8`] stay below this.
const MULTIPLIER_END: u32 = 1 << 21;

impl Kernel for Add8 {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_shift(self.shift, 31)?;
        for (field, zero) in [("zero_a", self.zero_a), ("zero_b", self.zero_b), ("zero", self.zero)] {
            check_zero(field, zero)?;
        }
        dtcm::below("mult_a", self.mult_a, MULTIPLIER_END)?;
        dtcm::below("mult_b", self.mult_b, MULTIPLIER_END)?;
        let d = Bounds { words: dtcm_words };
        let out = d.span("out", self.out, self.count)?;
        out.apart_or_same(&d.span("a", self.a, self.count)?)?;
        out.apart_or_same(&d.span("b", self.b, self.count)?)
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        if cfg!(target_arch = "arm") {
            #[cfg(target_arch = "arm")]
            crate::arm::int8::sum(self, dtcm);
            return;
        }
        let words = |address| dtcm::words(dtcm, address, self.count as usize);
        let (a, b, out) = (words(self.a), words(self.b), words(self.out));
        let part = |q: u8, zero: u32, multiplier: u32| (i32::from(q) - zero as i32) * multiplier as i32;
        for ((a, b), out) in a.iter().zip(b).zip(out) {
            let (a, b) = (a.get().to_le_bytes(), b.get().to_le_bytes());
            out.set(u32::from_le_bytes(core::array::from_fn(|i| {
                let sum = part(a[i], self.zero_a, self.mult_a) + part(b[i], self.zero_b, self.mult_b);
                saturate(shift_rounding(sum, self.shift) + self.zero as i32) as u8
            })));
        }
    }

    fn cycles(&self) -> u64 {
        cost::add8(self.count)
    }
}

/// Words of `rows` rows of numbers, and of as many of bytes.
fn spans(
    dtcm_words: usize,
    (rows, cols): (u32, u32),
    numbers: (&'static str, u32),
    bytes: (&'static str, u32),
) -> Result<(Span, Span), BadCall> {
    // Rows of nothing would have no bound.
    dtcm::nonzero("cols", cols)?;
    let d = Bounds { words: dtcm_words };
    let all = |row: u32| times(rows, row);
    Ok((d.span(numbers.0, numbers.1, all(cols))?, d.span(bytes.0, bytes.1, all(cols.div_ceil(4)))?))
}

/// Sign and exponent field of the inverse of a scale: numbers from 2^-63 to 2^119.
const INVERSE_FIELDS: core::ops::RangeInclusive<u32> = 64..=245;

impl Kernel for Quantise8 {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_zero("zero", self.zero)?;
        // Positive, and so far from the ends that no product of a number in range leaves what a shift can do.
        if !INVERSE_FIELDS.contains(&(self.inverse_bits >> 23)) {
            return Err(BadCall::value("inverse", self.inverse_bits));
        }
        let (x, out) = spans(dtcm_words, (self.rows, self.cols), ("x", self.x), ("out", self.out))?;
        out.apart_from(&[x])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        let inverse = f32::from_bits(self.inverse_bits);
        let x = dtcm::words(dtcm, self.x, rows * cols);
        let out = dtcm::words(dtcm, self.out, rows * cols.div_ceil(4));
        for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact(cols.div_ceil(4))) {
            // Bytes that fill the last word are zero points.
            out[out.len() - 1].set(self.zero * 0x0101_0101);
            if cfg!(target_arch = "arm") {
                #[cfg(target_arch = "arm")]
                crate::arm::int8::quantise(x, out, (inverse, self.zero));
                continue;
            }
            for (i, x) in x.iter().enumerate() {
                let q = num::to_i32(num::mul(num::load(x), inverse)).saturating_add(self.zero as i32);
                set_byte(out, i, saturate(q));
            }
        }
    }

    fn cycles(&self) -> u64 {
        cost::quantise8(self.rows, self.cols)
    }
}

impl Kernel for Dequantise8 {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        check_zero("zero", self.zero)?;
        let (out, x) = spans(dtcm_words, (self.rows, self.cols), ("out", self.out), ("x", self.x))?;
        out.apart_from(&[x])
    }

    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        let dtcm = dtcm::cells(dtcm);
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        let scale = f32::from_bits(self.scale_bits);
        let out = dtcm::words(dtcm, self.out, rows * cols);
        let x = dtcm::words(dtcm, self.x, rows * cols.div_ceil(4));
        for (x, out) in x.chunks_exact(cols.div_ceil(4)).zip(out.chunks_exact(cols)) {
            if cfg!(target_arch = "arm") {
                #[cfg(target_arch = "arm")]
                crate::arm::int8::dequantise(x, out, (scale, self.zero));
                continue;
            }
            for (i, out) in out.iter().enumerate() {
                let value = num::from_i64(i64::from(byte(x, i)) - i64::from(self.zero));
                num::store(out, num::mul(value, scale));
            }
        }
    }

    fn cycles(&self) -> u64 {
        cost::dequantise8(self.rows, self.cols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_map_every_byte() {
        let mut dtcm: Vec<u32> = vec![0; 68];
        for i in 0..64u32 {
            dtcm[4 + i as usize] = u32::from_le_bytes([0, 1, 2, 3].map(|k| !(4 * i as u8 + k)));
        }
        (dtcm[0], dtcm[1]) = (0x0403_0201, 0xFF80_7F00);
        Lookup8 { x: 0, out: 0, count: 2, table: 16 }.run(&mut dtcm);
        assert_eq!(dtcm[..2], [!0x0403_0201, !0xFF80_7F00]);
    }

    #[test]
    fn numbers_survive_bytes_within_half_a_step() {
        let (scale, zero, n) = (0.037f32, 77, 7);
        let mut dtcm = vec![0; 40];
        let values: Vec<f32> = (0..2 * n).map(|i| (i as f32 * 0.77).sin() * 2.8).collect();
        for (d, v) in dtcm.iter_mut().zip(&values) {
            *d = v.to_bits();
        }
        Quantise8 { x: 0, out: 80, rows: 2, cols: n as u32, inverse_bits: (1.0 / scale).to_bits(), zero }
            .run(&mut dtcm);
        assert_eq!(dtcm[21] >> 24, zero);
        Dequantise8 { x: 80, out: 0, rows: 2, cols: n as u32, scale_bits: scale.to_bits(), zero }.run(&mut dtcm);
        for (d, v) in dtcm.iter().zip(&values) {
            assert!((f32::from_bits(*d) - v).abs() <= scale * 0.5001, "{v}");
        }
        // What is out of range saturates; NaN is the zero point.
        let mut dtcm =
            vec![f32::INFINITY.to_bits(), f32::NEG_INFINITY.to_bits(), f32::NAN.to_bits(), 1e30f32.to_bits(), 0];
        Quantise8 { x: 0, out: 16, rows: 1, cols: 3, inverse_bits: 1f32.to_bits(), zero: 9 }.run(&mut dtcm);
        assert_eq!(dtcm[4], u32::from_le_bytes([255, 0, 9, 9]));
    }

    #[test]
    fn sums_are_those_of_the_numbers() {
        // Scales 2 and 1/2 to 1: multipliers 2^19 and 2^17 of 2^18.
        let call = Add8 {
            a: 0,
            b: 4,
            out: 8,
            count: 1,
            zero_a: 10,
            zero_b: 20,
            mult_a: 1 << 19,
            mult_b: 1 << 17,
            shift: 18,
            zero: 100,
        };
        let mut dtcm = vec![u32::from_le_bytes([10, 11, 0, 255]), u32::from_le_bytes([20, 21, 19, 255]), 0];
        call.run(&mut dtcm);
        // 0 + 0; 2 + 0.5; -20 - 0.5; 490 + ..
        assert_eq!(dtcm[2].to_le_bytes(), [100, 103, 80, 255]);
        assert!(Add8 { mult_a: 1 << 21, ..call }.check(3).is_err());
        assert!(Add8 { shift: 0, ..call }.check(3).is_err());
    }
}
