//! Kernels as the firmware has them, run on the instruction-level core, beside the same calls on the host.
//!
//! The images (`crates/spidnn-firmware/artefacts/kernels*.aplx`) are the kernel bench of the firmware crate: bare metal, no monitor.
//! [`Bench::run`] executes one call there and gives the data memory that it left and the cycles that it took;
//! [`cases`] makes calls and data.
//!
//! ```
//! use spidnn_kernels::{KernelCall, call::Fill};
//! use spidnn_truth::{Bench, Verdict};
//!
//! let mut bench = Bench::predict();
//! let mut memory = vec![0; spidnn_truth::PROGRAM_WORDS];
//! let call = KernelCall::from(Fill { dst: 8, count: 3, value_bits: 7 });
//! let Verdict::Done { run_cycles, .. } = bench.run(&call, &mut memory) else { panic!() };
//! assert_eq!(memory[1..6], [0, 7, 7, 7, 0]);
//! assert!(run_cycles < 120);
//! ```
#![forbid(unsafe_code)]

pub mod cases;
pub mod formats;
pub mod functions;
pub mod layers;
mod random;

pub use random::Random;

use spidnn_kernels::KernelCall;
use spinnaker_sim::arm968::{Access, Bus, BusError, Cpu, DTCM_START, Size};

/// Words of data memory that belong to programs.
pub const PROGRAM_WORDS: usize = 0xF000 / 4;
/// Where the bench takes the call from.
const CALL_ADDRESS: u32 = DTCM_START + 0xF000;
/// Where the bench stores its stage.
const MARK: u32 = 0x7000_0000;
/// What the monitor's loader reads goes in front of the code; the benches have no data to be copied.
const HEADER_BYTES: usize = spinnaker_wire::aplx::HEADER_BYTES;
/// No call takes longer.
const CYCLES_MAX: u64 = 200_000_000;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It ran.
    Done {
        /// Cycles to decode and check it.
        check_cycles: u64,
        /// Cycles of the kernel, entry and return included.
        run_cycles: u64,
    },
    /// It was refused.
    Refused,
    /// The program panicked, took a fault or did not end.
    Failed,
}

/// Records the stores that tell the stage.
#[derive(Default)]
struct Marks {
    stages: Vec<(u32, u64)>,
    attention: bool,
}

impl Bus for Marks {
    fn read(&mut self, _: u32, _: Size, _: u64) -> Result<Access, BusError> {
        Err(BusError)
    }
    fn write(&mut self, address: u32, _: Size, value: u32, at: u64) -> Result<u32, BusError> {
        if address != MARK {
            return Err(BusError);
        }
        self.stages.push((value, at));
        self.attention = true;
        Ok(0)
    }
    fn fetch(&mut self, _: u32, _: u64) -> Result<Access, BusError> {
        Err(BusError)
    }
    fn attention(&mut self) -> bool {
        std::mem::take(&mut self.attention)
    }
}

/// A core with the kernel bench in its instruction memory.
pub struct Bench {
    cpu: Cpu,
    image: &'static [u8],
}

impl Bench {
    /// The kernels of a forward pass.
    #[must_use]
    pub fn predict() -> Bench {
        Self::with(include_bytes!("../../spidnn-firmware/artefacts/kernels.aplx"))
    }

    /// The kernels of training.
    #[must_use]
    pub fn train() -> Bench {
        Self::with(include_bytes!("../../spidnn-firmware/artefacts/kernels_train.aplx"))
    }

    /// The kernels of the formats `int8` and `bfp16`.
    #[must_use]
    pub fn formats() -> Bench {
        Self::with(include_bytes!("../../spidnn-firmware/artefacts/kernels_formats.aplx"))
    }

    /// What the others leave out: other kernels, and all activations, losses and optimizers.
    #[must_use]
    pub fn rest() -> Bench {
        Self::with(include_bytes!("../../spidnn-firmware/artefacts/kernels_rest.aplx"))
    }

    /// The functions of numbers ([`functions`]).
    fn functions() -> Bench {
        Self::with(include_bytes!("../../spidnn-firmware/artefacts/functions.aplx"))
    }

    fn with(packed: &'static [u8]) -> Bench {
        Bench { cpu: Cpu::new(), image: &packed[HEADER_BYTES..] }
    }

    /// Bytes of the image.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.image.len()
    }

    /// Runs a call on a data memory of [`PROGRAM_WORDS`] words.
    ///
    /// # Panics
    /// If `memory` has another length.
    pub fn run(&mut self, call: &KernelCall, memory: &mut [u32]) -> Verdict {
        let mut parameters = [0; spidnn_kernels::call::CALL_WORDS_MAX];
        let count = call.encode(&mut parameters);
        self.run_words(call.number(), &parameters[..count], memory)
    }

    /// As [`Bench::run`], from the words of the call.
    ///
    /// # Panics
    /// If `memory` has another length.
    pub fn run_words(&mut self, number: u32, parameters: &[u32], memory: &mut [u32]) -> Verdict {
        assert_eq!(memory.len(), PROGRAM_WORDS, "words of data memory");
        let cpu = &mut self.cpu;
        cpu.reset();
        cpu.write_tcm(0, self.image).expect("the image fits instruction memory");
        for (place, word) in cpu.dtcm_mut().chunks_exact_mut(4).zip(&*memory) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        for (i, word) in [number, parameters.len() as u32].iter().chain(parameters).enumerate() {
            cpu.write_tcm(CALL_ADDRESS + 4 * i as u32, &word.to_le_bytes()).expect("the call fits data memory");
        }
        cpu.set_cycles(0);
        cpu.set_pc(0);
        let mut bus = Marks::default();
        while bus.stages.last().is_none_or(|&(stage, _)| stage < 3) && cpu.cycles() < CYCLES_MAX && cpu.pc() >> 15 == 0
        {
            cpu.run(&mut bus, CYCLES_MAX);
        }
        for (word, place) in memory.iter_mut().zip(cpu.dtcm().chunks_exact(4)) {
            *word = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
        }
        match bus.stages[..] {
            [(1, begin), (2, checked), (3, done)] => {
                Verdict::Done { check_cycles: checked - begin, run_cycles: done - checked }
            }
            [(1, _), (4, _)] => Verdict::Refused,
            _ => Verdict::Failed,
        }
    }
}
