//! Runs stages directly, core after core, without a machine. What the runtime and a machine do with time and packets is not
//! here; what the stages compute is, to the bit. It shows what a format costs in accuracy, and serves the tests.

use spidnn_core::command::{Command, Item, LINK_CYCLES, Patch, When, dma, loops, reg};
use spidnn_graph::{Graph, Tensor as Values};
use spidnn_kernels::KernelCall;
use spinnaker_machine::SDRAM_USER_BASE;

use crate::emit::{BUFFER_BYTES, SCALARS, Tensor};
use crate::lower::{Lowered, Target, lower};
use crate::plan::{Buffer, Options};
use crate::stage::CoreSlot;
use crate::{CompileError, Program};

/// Some chips with their SDRAM.
pub struct Chips {
    /// What runs on them.
    pub lowered: Lowered,
    /// Cores of each.
    pub cores: Vec<u32>,
    /// Their memories.
    pub sdram: Vec<Vec<u32>>,
    options: Options,
    /// Scalars of a run.
    pub scalars: [f32; 16],
}

impl Chips {
    /// Chips with so many cores each.
    ///
    /// # Errors
    /// A network that cannot be lowered.
    pub fn new(graph: &Graph, options: &Options, cores: &[u32]) -> Result<Chips, CompileError> {
        let target = Target {
            samples_max: options.samples().div_ceil(cores.len()) as u32,
            replicas: cores.len() as u32,
            link_cycles: LINK_CYCLES,
            exchange_slots: *cores.iter().min().unwrap(),
            base: SDRAM_USER_BASE,
        };
        let lowered = lower(graph, options, target)?;
        let words = (lowered.memory.end() - u64::from(SDRAM_USER_BASE)) as usize / 4;
        // Rubbish everywhere: what is read before it is written shows.
        let sdram = vec![vec![0x7fc0_dead; words]; cores.len()];
        Ok(Chips { lowered, cores: cores.to_vec(), sdram, options: options.clone(), scalars: [0.0; 16] })
    }

    /// Writes a sample's numbers.
    pub fn write(&mut self, chip: usize, buffer: &Buffer, sample: usize, values: &[f32]) {
        let at = (buffer.address - SDRAM_USER_BASE) as usize / 4 + sample * buffer.sample_stride_bytes as usize / 4;
        assert_eq!(values.len(), buffer.words as usize);
        for (word, value) in self.sdram[chip][at..].iter_mut().zip(values) {
            *word = value.to_bits();
        }
    }

    /// Writes a sample of a model input, in the form that it takes.
    pub fn write_input(&mut self, chip: usize, (set, k): (usize, usize), sample: usize, values: &[f32]) {
        let buffer = self.lowered.inputs[set][k];
        match self.lowered.input_bytes[k] {
            Some(bytes) => {
                let words: Vec<f32> = bytes.words(values).into_iter().map(f32::from_bits).collect();
                self.write(chip, &buffer, sample, &words);
            }
            None => self.write(chip, &buffer, sample, values),
        }
    }

    /// Reads a sample's numbers.
    #[cfg(test)]
    pub fn read(&self, chip: usize, buffer: &Buffer, sample: usize) -> Vec<f32> {
        let at = (buffer.address - SDRAM_USER_BASE) as usize / 4 + sample * buffer.sample_stride_bytes as usize / 4;
        self.sdram[chip][at..at + buffer.words as usize].iter().map(|&w| f32::from_bits(w)).collect()
    }

    /// The words of a tensor's sample.
    pub fn words(&self, chip: usize, tensor: &Tensor, sample: usize) -> Vec<u32> {
        let at = (tensor.address - SDRAM_USER_BASE) as usize / 4 + sample * tensor.words as usize;
        self.sdram[chip][at..at + tensor.words as usize].to_vec()
    }

    /// Gives all chips these parameters, and the optimizer no state.
    pub fn set_weights(&mut self, graph: &Graph, weights: &[Values]) {
        for chip in 0..self.cores.len() {
            for (i, w) in weights.iter().enumerate() {
                let values: Vec<f32> = w.iter().copied().collect();
                let buffer = self.lowered.params[i];
                self.write(chip, &buffer, 0, &values);
            }
            let contents: Vec<Vec<u32>> = match &self.lowered.constants {
                Some(constants) => constants.clone(),
                None => {
                    let params = crate::fold::inference_params(graph, self.options.format.mantissas());
                    params.iter().map(|p| p.contents(weights)).collect()
                }
            };
            for (i, words) in contents.into_iter().enumerate() {
                let buffer = self.lowered.inference_params[i];
                let values: Vec<f32> = words.into_iter().map(f32::from_bits).collect();
                self.write(chip, &buffer, 0, &values);
            }
        }
        for state in self.lowered.optimizer_state.clone() {
            self.write(0, &state.buffer, 0, &vec![0.0; state.buffer.words as usize]);
        }
    }

    /// Samples of each chip for a batch.
    pub fn shares(&self, samples: usize) -> Vec<usize> {
        let n = self.cores.len();
        (0..n).map(|i| samples / n + usize::from(i < samples % n)).collect()
    }

    /// Runs a program for a batch.
    pub fn run(&mut self, program: Program, samples: usize, input_buffer: u32) {
        let stages = self.lowered.programs.iter().position(|(p, _)| *p == program).unwrap();
        let shares = self.shares(samples);
        let count = self.lowered.programs[stages].1.len();
        for s in 0..count {
            let mut first = 0;
            for chip in 0..self.cores.len() {
                let who = CoreSlot::new(
                    0,
                    self.cores[chip],
                    self.options.samples_of(program).div_ceil(self.cores.len()) as u32,
                    chip == 0,
                );
                let emitted = self.lowered.programs[stages].1[s].emit(who).unwrap();
                for emitted in emitted.iter().flatten() {
                    let mut core = Core { dtcm: vec![0x7fc0_beef; 16384], registers: [0; reg::COUNT] };
                    for (i, v) in self.scalars.iter().enumerate() {
                        core.dtcm[SCALARS as usize / 4 + i] = v.to_bits();
                    }
                    core.registers[usize::from(reg::SAMPLES)] = shares[chip] as u32;
                    core.registers[usize::from(reg::FIRST_SAMPLE)] = first;
                    core.registers[usize::from(reg::INPUT_BUFFER)] = input_buffer;
                    core.registers[usize::from(reg::INVERSE_BATCH)] = (1.0 / samples as f32).to_bits();
                    core.execute(&emitted.items, &mut self.sdram, chip, (true, true, true));
                }
                first += shares[chip] as u32;
            }
        }
    }
}

struct Core {
    dtcm: Vec<u32>,
    registers: [u32; reg::COUNT],
}

impl Core {
    fn patched(&self, value: u32, word: u8, patches: &[Patch]) -> u32 {
        patches
            .iter()
            .filter(|p| p.word == word)
            .fold(value, |v, p| v.wrapping_add(self.registers[usize::from(p.register)].wrapping_mul(p.scale as u32)))
    }

    fn execute(&mut self, items: &[Item], sdram: &mut [Vec<u32>], chip: usize, turn: (bool, bool, bool)) {
        for item in items {
            match item {
                Item::Do(step) => {
                    let runs = match step.when {
                        When::Always => true,
                        When::First => turn.0,
                        When::Next => turn.1,
                        When::Last => turn.2,
                    };
                    if !runs {
                        continue;
                    }
                    let p = |value: u32, word: u8| self.patched(value, word, &step.patches);
                    match &step.command {
                        Command::Dma(d) => {
                            let first = i64::from(p(d.first as u32, dma::FIRST) as i32);
                            let rows = i64::from(p(d.rows, dma::ROWS));
                            let limit = i64::from(p(d.limit, dma::LIMIT));
                            let (from, at) = (p(d.sdram, dma::SDRAM), p(d.dtcm, dma::DTCM));
                            let bytes = p(d.row_bytes, dma::ROW_BYTES);
                            for r in first.max(0)..(first + rows).min(limit) {
                                let s =
                                    (i64::from(from - SDRAM_USER_BASE) + r * i64::from(d.sdram_stride)) as usize / 4;
                                let t = (i64::from(at) + (r - first) * i64::from(d.dtcm_stride)) as usize / 4;
                                let n = bytes as usize / 4;
                                assert!((t + n) * 4 <= BUFFER_BYTES as usize, "transfer beyond the buffers");
                                if d.out == 0 {
                                    self.dtcm[t..t + n].copy_from_slice(&sdram[chip][s..s + n]);
                                } else {
                                    sdram[chip][s..s + n].copy_from_slice(&self.dtcm[t..t + n]);
                                }
                            }
                        }
                        Command::Kernel(call) => {
                            let mut words = [0u32; spidnn_kernels::call::CALL_WORDS_MAX];
                            let n = call.encode(&mut words);
                            for (i, word) in words[..n].iter_mut().enumerate() {
                                *word = self.patched(*word, i as u8, &step.patches);
                            }
                            let call = KernelCall::decode(call.number(), &words[..n]).unwrap();
                            call.run(&mut self.dtcm);
                        }
                        Command::ReduceUp(e) => {
                            // The root is chip 0 and all others are its children.
                            if chip == sdram.len() - 1 {
                                let at = (e.sdram - SDRAM_USER_BASE) as usize / 4;
                                for i in at..at + e.words as usize {
                                    let mut sum = f32::from_bits(sdram[0][i]);
                                    for other in sdram.iter().skip(1) {
                                        sum += f32::from_bits(other[i]);
                                    }
                                    for own in sdram.iter_mut() {
                                        own[i] = sum.to_bits();
                                    }
                                }
                            }
                        }
                        Command::BroadcastDown(e) => {
                            let at = (e.sdram - SDRAM_USER_BASE) as usize / 4;
                            let values = sdram[0][at..at + e.words as usize].to_vec();
                            sdram[chip][at..at + e.words as usize].copy_from_slice(&values);
                        }
                        Command::Wait { .. } | Command::Barrier => {}
                    }
                }
                Item::Loop(header, patches, body) => {
                    let depth = header.depth as u8;
                    let undivided = self.patched(header.total, loops::TOTAL, patches);
                    let start = self.patched(header.start, loops::START, patches);
                    let total = undivided.div_ceil(header.total_divisor).min(header.end);
                    let mut index = start;
                    let mut parity = 0;
                    while index < total {
                        let base = usize::from(reg::loop_index(depth));
                        for (offset, i, p) in [(0, index, parity), (4, index.wrapping_add(header.step), 1 - parity)] {
                            self.registers[base + offset] = i;
                            self.registers[base + offset + 1] = i / header.divisor;
                            self.registers[base + offset + 2] = i % header.divisor;
                            self.registers[base + offset + 3] = p;
                            let left = undivided.saturating_sub(i.saturating_mul(header.total_divisor));
                            self.registers[usize::from(reg::loop_count(depth)) + offset / 4] =
                                left.min(header.total_divisor);
                        }
                        let next = index + header.step < total;
                        self.execute(body, sdram, chip, (index == start, next, !next));
                        index += header.step;
                        parity = 1 - parity;
                    }
                }
            }
        }
    }
}
