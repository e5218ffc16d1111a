//! Random operands for the comparisons of vector forms with the definitions.

use proptest::test_runner::TestCaseError;

use super::product::Level;
use super::round::Operands;
use crate::call::{EXPONENT_NAN, EXPONENT_ZERO, HALF_MAX};

/// A stream of test operands from a seed.
pub struct Mantissas(u64);

impl Mantissas {
    pub fn new(seed: u64) -> Self {
        Mantissas(seed)
    }

    /// SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Mantissas of all sizes, the extremes among them.
    pub fn mantissas(&mut self, out: &mut [u32]) {
        for word in out {
            let r = self.next();
            let m = (r as u32 & 0x3FF_FFFF) as i32 >> ((r >> 40) % 30).min(26);
            let m = if (r >> 50).is_multiple_of(16) { 1 << 26 } else { m };
            *word = (if r >> 63 == 1 { -m } else { m }) as u32;
        }
    }

    /// Words of halves of all sizes, the extremes among them.
    pub fn halves(&mut self, out: &mut [u32]) {
        for word in out {
            let mut half = || {
                let r = self.next();
                let m = if (r >> 50).is_multiple_of(16) {
                    HALF_MAX as i32
                } else {
                    (r as u32 % (HALF_MAX + 1)) as i32 >> ((r >> 40) % 16)
                };
                (if r >> 63 == 1 { -m } else { m }) as u32 & 0xFFFF
            };
            *word = half() | half() << 16;
        }
    }

    /// Operands of one kind.
    pub fn operands(&mut self, operands: Operands, out: &mut [u32]) {
        match operands {
            Operands::Mantissas => self.mantissas(out),
            Operands::Halves => self.halves(out),
        }
    }

    /// Exponents of ordinary, tiny and huge blocks, of zeros, and now and then of NaNs.
    pub fn exponents(&mut self, out: &mut [u32]) {
        for word in out {
            let r = self.next();
            *word = match (r >> 32) % 24 {
                0 => EXPONENT_NAN,
                1 => EXPONENT_ZERO,
                2..8 => -148 + (r % 277) as i32,
                8..14 => -70 + (r % 20) as i32,
                _ => -5 + (r % 10) as i32,
            } as u32;
        }
    }

    /// Bits of numbers of all kinds: usual, any size, zeros, subnormals, and with `special` infinities and NaNs.
    pub fn number(&mut self, special: bool) -> u32 {
        let r = self.next();
        let bits = match (r >> 32) % 16 {
            0 => r as u32 & 0x8000_0000,
            1 => r as u32 & 0x807F_FFFF,
            2..5 => r as u32,
            _ => r as u32 & 0x83FF_FFFF | 0x3C00_0000,
        };
        let finite = bits & 0x7F80_0000 != 0x7F80_0000;
        if finite || (special && r >> 60 == 0) { bits } else { bits & 0xBFFF_FFFF }
    }

    pub fn numbers(&mut self, out: &mut [u32]) {
        for word in out {
            *word = self.number(true);
        }
    }
}

/// An error that names the first word that differs.
pub fn same(expected: &[u32], found: &[u32], level: Level) -> Result<(), TestCaseError> {
    match expected.iter().zip(found).position(|(e, f)| e != f) {
        Some(i) => Err(TestCaseError::fail(format!("{level:?}: word {i} is {:#x}, not {:#x}", found[i], expected[i]))),
        None => Ok(()),
    }
}
