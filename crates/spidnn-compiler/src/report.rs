//! The plan in words and numbers: what each layer and each core gets, and what limits it.

use std::fmt;

/// What one stage (a layer's forward or backward part) costs on a chip, for a full run.
#[derive(Debug, Clone, PartialEq)]
pub struct StageReport {
    /// Which program: `predict`, `train`, `evaluate`.
    pub program: &'static str,
    /// Name of the layer.
    pub layer: String,
    /// What the stage does: `forward`, `input gradient`, ..
    pub what: &'static str,
    /// The kernel that does the work, and how the work is split.
    pub kernel: String,
    /// Cores of a chip that have work in it.
    pub cores: usize,
    /// Kernel cycles of the busiest core.
    pub cycles_busiest: u64,
    /// Kernel cycles of all cores of a chip.
    pub cycles_total: u64,
    /// Bytes that all cores of a chip move by DMA.
    pub dma_bytes: u64,
    /// Largest use of a core's local memory, in bytes.
    pub dtcm_bytes: u64,
    /// Multiply-accumulates on a chip.
    pub macs: u64,
}

/// What one core of the root chip does in a full run of each program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreReport {
    /// Number of the core.
    pub core: u8,
    /// Largest use of its local memory for buffers, in bytes.
    pub dtcm_bytes: u64,
    /// Words of its command lists.
    pub command_words: usize,
    /// Kernel cycles of each program that there is, by its name.
    pub cycles: Vec<(&'static str, u64)>,
}

/// The whole plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// Chips used, and working cores used on all of them.
    pub chips: usize,
    /// Cores used on all chips.
    pub cores: usize,
    /// Samples that a chip takes in one run.
    pub samples_per_chip: usize,
    /// Stages of all programs, in order.
    pub stages: Vec<StageReport>,
    /// Cores of the root chip, the fullest first. (The others differ by a sample at most, and have no optimizer.)
    pub root_cores: Vec<CoreReport>,
    /// SDRAM bytes used on a chip, by purpose.
    pub sdram_bytes: Vec<(String, u64)>,
    /// SDRAM bytes that a chip has.
    pub sdram_available_bytes: u64,
    /// Most routing entries on one chip, after and before minimisation.
    pub routing_entries: (usize, usize),
    /// Words of the longest command list.
    pub command_words: usize,
}

impl Report {
    /// Stages of a program, slowest first.
    pub fn slowest(&self, program: &str) -> Vec<&StageReport> {
        let mut stages: Vec<_> = self.stages.iter().filter(|s| s.program == program).collect();
        stages.sort_by_key(|s| std::cmp::Reverse(s.cycles_bound()));
        stages
    }

    /// Predicted core cycles of one run of a program on a chip (stages follow each other).
    pub fn cycles(&self, program: &str) -> u64 {
        self.stages.iter().filter(|s| s.program == program).map(StageReport::cycles_bound).sum()
    }

    /// Multiply-accumulates of one run of a program on a chip.
    pub fn macs(&self, program: &str) -> u64 {
        self.stages.iter().filter(|s| s.program == program).map(|s| s.macs).sum()
    }

    /// SDRAM bytes used on a chip.
    pub fn sdram_total_bytes(&self) -> u64 {
        self.sdram_bytes.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Bytes a chip's SDRAM moves in one core cycle: 640 MB/s at 200 MHz (the planning figure of application writers).
const SDRAM_BYTES_PER_CYCLE: f64 = 3.2;

/// Cycles that a chip's memory takes for so many bytes.
pub fn memory_cycles(bytes: u64) -> u64 {
    (bytes as f64 / SDRAM_BYTES_PER_CYCLE) as u64
}

impl StageReport {
    /// Cycles that the stage takes at least: the busiest core, or the memory.
    pub fn cycles_bound(&self) -> u64 {
        self.cycles_busiest.max(memory_cycles(self.dma_bytes))
    }

    /// Whether the cores or the memory limit the stage.
    pub fn limit(&self) -> &'static str {
        if self.cycles_bound() == self.cycles_busiest { "cores" } else { "memory" }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} chips, {} cores, {} samples a chip at a time",
            self.model, self.chips, self.cores, self.samples_per_chip
        )?;
        writeln!(f, "SDRAM on each chip: {} of {} bytes", self.sdram_total_bytes(), self.sdram_available_bytes)?;
        for (what, bytes) in &self.sdram_bytes {
            writeln!(f, "  {what:<24} {bytes:>12}")?;
        }
        writeln!(
            f,
            "routing entries: at most {} on a chip ({} before minimisation); longest command list {} words",
            self.routing_entries.0, self.routing_entries.1, self.command_words
        )?;
        for program in ["predict", "evaluate", "train"] {
            let stages = self.slowest(program);
            if stages.is_empty() {
                continue;
            }
            let cycles = self.cycles(program);
            let macs = self.macs(program);
            let core_cycles: u64 = stages.iter().map(|s| s.cycles_total).sum();
            writeln!(
                f,
                "\n{program}: {cycles} cycles ({:.3} ms at 200 MHz), {macs} multiply-accumulates, {:.2} core cycles each",
                cycles as f64 / 200e3,
                core_cycles as f64 / macs.max(1) as f64
            )?;
            writeln!(
                f,
                "  {:<24} {:<16} {:<28} {:>5} {:>12} {:>7} {:>12} {:>7} {:>7}",
                "layer", "what", "kernel", "cores", "cycles", "limit", "dma bytes", "dtcm", "cyc/mac"
            )?;
            for s in stages {
                let per_mac = if s.macs == 0 {
                    String::from("-")
                } else {
                    format!("{:.2}", s.cycles_total as f64 / s.macs as f64)
                };
                writeln!(
                    f,
                    "  {:<24} {:<16} {:<28} {:>5} {:>12} {:>7} {:>12} {:>7} {:>7}",
                    s.layer,
                    s.what,
                    s.kernel,
                    s.cores,
                    s.cycles_bound(),
                    s.limit(),
                    s.dma_bytes,
                    s.dtcm_bytes,
                    per_mac
                )?;
            }
        }
        if let Some(first) = self.root_cores.first() {
            write!(
                f,
                "\ncores of the root chip, the fullest first\n  {:>4} {:>7} {:>14}",
                "core", "dtcm", "command words"
            )?;
            for (program, _) in &first.cycles {
                write!(f, " {:>17}", format!("{program} cycles"))?;
            }
            writeln!(f)?;
        }
        for core in &self.root_cores {
            write!(f, "  {:>4} {:>7} {:>14}", core.core, core.dtcm_bytes, core.command_words)?;
            for (_, cycles) in &core.cycles {
                write!(f, " {cycles:>17}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
