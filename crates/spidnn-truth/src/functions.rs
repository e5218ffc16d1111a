//! Elementary functions one number at a time: bits and cycles of the firmware's own forms.

use spidnn_kernels::functions;

use crate::{Bench, PROGRAM_WORDS, Verdict};

/// A function, by its place in the bench.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// What the host computes.
    pub of: fn(f32) -> f32,
    /// Its number in the bench.
    number: u32,
}

/// A turn of the loop around a function: LDR, MOV or LDR, BLX 3, SUBS, STR, BNE 3.
const TURN_CYCLES: f64 = 10.0;

/// Those whose cycles have a bound.
pub const ALL: [Function; 5] = [
    Function { name: "exp", of: functions::exp, number: 0 },
    Function { name: "tanh", of: functions::tanh, number: 1 },
    Function { name: "sigmoid", of: functions::sigmoid, number: 2 },
    Function { name: "1/sqrt", of: functions::reciprocal_sqrt, number: 3 },
    Function { name: "1/x", of: functions::reciprocal, number: 4 },
];

/// Ranges of numbers, for each of which a function has to keep its bound: name, and two bit patterns.
pub const RANGES: &[(&str, u32, u32)] = &[
    ("small", 0x2000_0000, 0x3A00_0000),
    ("usual", 0x3A00_0000, 0x4080_0000),
    ("4 to 16", 0x4080_0000, 0x4180_0000),
    ("16 to 87", 0x4180_0000, 0x42AE_0000),
    ("large", 0x42AE_0000, 0x6000_0000),
    ("small, below 0", 0xA000_0000, 0xBA00_0000),
    ("usual, below 0", 0xBA00_0000, 0xC080_0000),
    ("-4 to -16", 0xC080_0000, 0xC180_0000),
    ("-16 to -87", 0xC180_0000, 0xC2AE_0000),
    ("large, below 0", 0xC2AE_0000, 0xE000_0000),
];

/// 500 numbers of a range.
#[must_use]
pub fn numbers_of(from: u32, to: u32, random: &mut crate::Random) -> Vec<f32> {
    (0..500).map(|_| f32::from_bits(from + ((u64::from(to - from) * u64::from(random.word())) >> 32) as u32)).collect()
}

/// A core with the functions in its instruction memory.
pub struct FunctionBench(Bench);

impl FunctionBench {
    /// A core that has run nothing.
    #[must_use]
    pub fn new() -> FunctionBench {
        FunctionBench(Bench::functions())
    }

    /// What the core makes of numbers, and cycles of a function, its return included and its call not, in the mean of them.
    ///
    /// # Panics
    /// If they are none or more than half of data memory, or the core fails.
    pub fn run(&mut self, function: Function, numbers: &[f32]) -> (Vec<f32>, f64) {
        // Twice as many less once as many: what is around the loop falls out.
        let twice = [numbers, numbers].concat();
        let (found, once) = self.words(function, numbers);
        let more = self.words(function, &twice).1 - once;
        (found, more as f64 / numbers.len() as f64 - TURN_CYCLES)
    }

    fn words(&mut self, function: Function, numbers: &[f32]) -> (Vec<f32>, u64) {
        let mut memory = vec![0; PROGRAM_WORDS];
        memory[0] = 1f32.to_bits();
        for (place, x) in memory[1..].iter_mut().zip(numbers) {
            *place = x.to_bits();
        }
        match self.0.run_words(function.number, &[numbers.len() as u32], &mut memory) {
            Verdict::Done { run_cycles, .. } => {
                (memory[1..=numbers.len()].iter().map(|&bits| f32::from_bits(bits)).collect(), run_cycles)
            }
            verdict => panic!("{}: {verdict:?}", function.name),
        }
    }
}

impl Default for FunctionBench {
    fn default() -> Self {
        Self::new()
    }
}
