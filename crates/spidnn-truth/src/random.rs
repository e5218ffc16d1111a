//! Seeded random numbers: SplitMix64 (S. Vigna, public domain), the same on every machine.

/// A generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any word.
    pub fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 16) as u32
    }

    /// A number of `low ..= high`.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        low + ((u64::from(self.word()) * (u64::from(high - low) + 1)) >> 32) as u32
    }

    /// One of some.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.between(0, choices.len() as u32 - 1) as usize]
    }

    /// Bits of a usual number: magnitude around 1, either sign.
    pub fn number(&mut self) -> u32 {
        let unit = f64::from(self.word()) / f64::from(u32::MAX);
        let sum: f64 = (0..3).map(|_| f64::from(self.word()) / f64::from(u32::MAX) - 0.5).sum();
        // Something like a normal distribution, with small values more often.
        ((sum * 2.0 * (0.25 + unit)) as f32).to_bits()
    }

    /// Bits of any kind of number: usual ones, and often zeros, ties, subnormals, infinities, NaNs, extremes.
    pub fn any_number(&mut self) -> u32 {
        let sign = self.word() & 0x8000_0000;
        match self.between(0, 11) {
            0 => sign,
            1 => sign | (self.word() & 0x007F_FFFF),
            2 => sign | self.one_of(&[0x7F80_0000, 0x7FC0_0000, 0x7F80_0001, 0x7F7F_FFFF, 0x0080_0000, 0x3F80_0000]),
            3 => self.word(),
            4 => self.word() & 0xFFF8_0000,
            5 => sign | 0x3F80_0000 | (self.word() & 0x0007_0000),
            _ => self.number(),
        }
    }
}
