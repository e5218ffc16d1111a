//! What a session costs.

use crate::board::Counters;

/// Machine time by what it was spent on, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Phases {
    /// Programs, routing tables and weights onto the machine.
    pub load_s: f64,
    /// Running, with inputs streaming in.
    pub run_s: f64,
    /// Reading results.
    pub read_s: f64,
}

/// What a session has cost so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// Time on the machine.
    pub machine_time_s: f64,
    /// The same by phases.
    pub phases: Phases,
    /// Time on the host.
    pub wall_time_s: f64,
    /// Time from the start signal until all cores were ready again, over all runs: without streaming and reading.
    pub compute_s: f64,
    /// Multiply-accumulates of all runs.
    pub macs: u64,
    /// Application cores in use, over all chips.
    pub cores: usize,
    /// Chips in use.
    pub chips: usize,
    /// Core cycles (of all cores in use, busy or not, in [`Usage::compute_s`]) for each multiply-accumulate; 0 before any.
    pub cycles_per_mac: f64,
    /// What went over the wires.
    pub counters: Counters,
    /// Times that programs were loaded.
    pub loads: usize,
    /// Samples that were trained on.
    pub samples_trained: u64,
}
