//! The pipeline's stalls within a straight run of code, decided before it executes.
//!
//! A result is late by two cycles at most, so what an instruction waits for depends on the few before it. Where all of
//! them surely execute, its stall is a constant. Where one has a condition and its failing would change a later stall,
//! the instructions concerned are scheduled while they execute, by the scoreboard.

use super::instruction::{ALWAYS, Instruction};
use super::timing::{FAILED_CYCLES, Timing};

/// An instruction of a block with its timing and its place in the schedule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scheduled {
    pub instruction: Instruction,
    pub timing: Timing,
    /// Cycles that it waits for its operands, unless `dynamic`.
    pub stall: u8,
    /// To be scheduled while executing.
    pub dynamic: bool,
    /// Results of earlier instructions that are still late when this one, the first of a dynamic run, starts.
    pub pending: Pending,
    /// Waits of its own data access would change what a later instruction waits for.
    pub wait_sensitive: bool,
}

/// Registers whose values are late: by one cycle or more, and by two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    pub late_1: u16,
    pub late_2: u16,
    /// Late as an accumulator of a multiply, too: all but products.
    pub late_accumulators: u16,
}

impl Pending {
    const NONE: Pending = Pending { late_1: 0, late_2: 0, late_accumulators: 0 };

    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Sets of registers that are late, with the cycles until they are ready for an ordinary reader and for an accumulator.
    pub fn late(self) -> [(u16, u8, u8); 3] {
        let once = self.late_1 & !self.late_2;
        [(once & !self.late_accumulators, 1, 0), (once & self.late_accumulators, 1, 1), (self.late_2, 2, 2)]
    }

    /// Cycles that an instruction waits for its operands.
    fn stall(self, timing: &Timing) -> u8 {
        let read = timing.sources | timing.accumulators & self.late_accumulators;
        match read {
            _ if read & self.late_2 != 0 => 2,
            _ if read & self.late_1 != 0 => 1,
            _ => 0,
        }
    }

    /// After so many cycles.
    pub fn after(self, cycles: u8) -> Self {
        match cycles {
            0 => self,
            1 => Self { late_1: self.late_2, late_2: 0, late_accumulators: self.late_accumulators & self.late_2 },
            _ => Self::NONE,
        }
    }

    /// After an instruction that executed, without what its memory accesses wait.
    fn after_executed(self, timing: &Timing) -> Self {
        let before = self.after(self.stall(timing).saturating_add(timing.issue));
        let kept = !timing.written;
        let late = timing.late_1 | timing.late_2;
        Self {
            late_1: before.late_1 & kept | late | timing.products,
            late_2: before.late_2 & kept | timing.late_2,
            late_accumulators: before.late_accumulators & kept | late,
        }
    }
}

impl Scheduled {
    /// Results of earlier instructions that are still late when this one ends, if its accesses do not wait. None of a
    /// dynamic one, of which the scoreboard knows.
    pub fn still_pending(&self) -> Pending {
        if self.dynamic {
            return Pending::NONE;
        }
        let before = self.pending.after(self.stall.saturating_add(self.timing.issue));
        let kept = !self.timing.written;
        Pending {
            late_1: before.late_1 & kept,
            late_2: before.late_2 & kept,
            late_accumulators: before.late_accumulators & kept,
        }
    }
}

/// Whether a block goes on after the instruction when it executes. (One that leaves takes three cycles at least, so
/// nothing is late after it.)
fn stays(instruction: &Instruction) -> bool {
    instruction.condition == ALWAYS || !instruction.operation.changes_pc()
}

/// The ways a run of code can have gone so far, as far as they make a difference: at most two or three.
#[derive(Debug, Clone)]
struct Paths(Vec<Pending>);

impl Paths {
    /// Stalls of the next instruction over all paths: least and greatest.
    fn stalls(&self, timing: &Timing) -> (u8, u8) {
        let stalls = self.0.iter().map(|pending| pending.stall(timing));
        stalls.fold((u8::MAX, 0), |(least, greatest), stall| (least.min(stall), greatest.max(stall)))
    }

    fn advance(&mut self, instruction: &Instruction, timing: &Timing) {
        let mut next = Vec::with_capacity(self.0.len() + 1);
        for pending in &self.0 {
            let mut add = |pending| {
                if !next.contains(&pending) {
                    next.push(pending);
                }
            };
            if stays(instruction) {
                add(pending.after_executed(timing));
            }
            if instruction.condition != ALWAYS {
                add(pending.after(FAILED_CYCLES as u8));
            }
        }
        self.0 = next;
    }
}

/// Schedules a straight run of code that starts with every register ready. Also gives what is late after it, which is
/// only known if the last instructions are not dynamic.
pub(super) fn schedule(code: &[Instruction]) -> (Vec<Scheduled>, Pending) {
    let mut scheduled = Vec::with_capacity(code.len());
    let mut pending = Pending::NONE;
    while scheduled.len() < code.len() {
        let rest = &code[scheduled.len()..];
        let run = forked_run(rest, pending);
        for instruction in &rest[..run.length] {
            let timing = Timing::of(instruction);
            let stall = pending.stall(&timing);
            scheduled.push(Scheduled {
                instruction: *instruction,
                timing,
                stall: if run.dynamic { 0 } else { stall },
                dynamic: run.dynamic,
                pending,
                wait_sensitive: false,
            });
            pending = run.advance(pending, instruction, &timing);
        }
        pending = run.after;
    }
    mark_wait_sensitive(&mut scheduled);
    (scheduled, pending)
}

/// A run of instructions that is scheduled in one manner.
struct Run {
    length: usize,
    dynamic: bool,
    after: Pending,
}

impl Run {
    /// What is late within a run that is not dynamic: the stalls are the same whether conditions fail or not.
    fn advance(&self, pending: Pending, instruction: &Instruction, timing: &Timing) -> Pending {
        if stays(instruction) { pending.after_executed(timing) } else { pending.after(FAILED_CYCLES as u8) }
    }
}

/// The next instruction alone if its condition makes no difference, or with all those after it to which it does.
fn forked_run(rest: &[Instruction], pending: Pending) -> Run {
    let mut paths = Paths(vec![pending]);
    let mut dynamic = false;
    for (index, instruction) in rest.iter().enumerate() {
        let timing = Timing::of(instruction);
        let (least, greatest) = paths.stalls(&timing);
        dynamic |= least != greatest;
        paths.advance(instruction, &timing);
        if let [after] = paths.0[..]
            && (!dynamic || after.is_empty())
        {
            return Run { length: index + 1, dynamic, after };
        }
    }
    // The block ends before the paths meet: what is late then is known only to the scoreboard.
    Run { length: rest.len(), dynamic: true, after: Pending::NONE }
}

/// An access that waits lets earlier results become ready meanwhile: sensitive if one of them would still be late
/// afterwards otherwise.
fn mark_wait_sensitive(scheduled: &mut [Scheduled]) {
    for entry in scheduled.iter_mut() {
        let before = entry.pending.after(entry.stall.saturating_add(entry.timing.issue));
        entry.wait_sensitive = !entry.dynamic && !before.is_empty();
    }
}
