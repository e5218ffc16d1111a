//! Beats: what a core does each time that it wakes, until it sleeps again, worked out once.
//!
//! An idle monitor wakes each millisecond, counts, looks whether anything is due and sleeps again: some 430 instructions of calls,
//! locks, registers saved and restored, most of which comes to nothing in the end. Such a wake is recorded (`record`): every
//! value as an expression over what was found (`values`), everything that a branch or an address depends on as a condition.
//! What is left (`lower`) is a list of steps with the conditions among them, and what is to be written. The steps that depend on
//! what the wake itself changes, as its counters, are few: by these alone it is found out how many more such wakes follow each
//! other before one goes another way. All of them are then made at once, with the registers, memories, cycles and count of
//! instructions that the core would have.
//!
//! When a beat may stand for a wake, and what it leaves of the core's devices, is its chip's to know (`chip/rest.rs`).

mod lower;
mod record;
#[cfg(test)]
mod tests;
mod values;

use super::bus::Bus;
use super::state::{Mode, State, store_word};
use lower::{Output, Slots, Turns};
pub(super) use record::Recorder;

/// The part of a core's state that is the same each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Context {
    pc: u32,
    thumb: bool,
    mode: Mode,
    irq_masked: bool,
    fiq_masked: bool,
    q: bool,
    control: u32,
    /// [`Bus::pace`].
    pace: u64,
}

impl Context {
    fn of<B: Bus>(state: &State, bus: &B) -> Self {
        Self {
            pc: state.pc,
            thumb: state.thumb,
            mode: state.mode(),
            irq_masked: state.irq_masked,
            fiq_masked: state.fiq_masked,
            q: state.q,
            control: state.control,
            pace: bus.pace(),
        }
    }
}

/// A wake from sleep to sleep, and what it does.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Beat {
    at: Context,
    turns: Turns,
    places: Box<[(u8, Output)]>,
    flags: [Output; 4],
    data: Box<[(u32, Output)]>,
    words: Box<[(u32, Output)]>,
    /// From waking to sleeping.
    pub cycles: u64,
    instructions: u64,
}

/// Beats that a core is going to make: what the first and the last of them compute.
#[derive(Debug)]
pub(crate) struct Ahead {
    first: Box<Slots>,
    last: Box<Slots>,
    count: u64,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { first: Box::new([0; 256]), last: Box::new([0; 256]), count: 0 }
    }
}

impl Beat {
    /// How many such beats, one after the other, a core would make that sleeps; at most so many.
    pub(super) fn count<B: Bus>(&self, state: &State, bus: &B, most: u64, ahead: &mut Ahead) -> u64 {
        let here = state.waiting && Context::of(state, bus) == self.at;
        if most == 0 || !here || !self.turns.first(&mut ahead.first, state, bus) {
            return 0;
        }
        *ahead.last = *ahead.first;
        ahead.count = 1;
        while ahead.count < most {
            let mut next = *ahead.last;
            if !self.turns.next(&mut next) {
                break;
            }
            *ahead.last = next;
            ahead.count += 1;
        }
        ahead.count
    }

    /// Makes so many of the beats ahead; the last one begins at a cycle.
    pub(super) fn make<B: Bus>(&self, state: &mut State, bus: &mut B, ahead: &mut Ahead, count: u64, last_at: u64) {
        ahead.count -= count;
        let values = if ahead.count == 0 { &mut ahead.last } else { &mut ahead.first };
        if ahead.count > 0 {
            (1..count).for_each(|_| _ = self.turns.next(values));
        }
        for &(address, output) in &self.data {
            store_word(&mut state.dtcm, address, output.of(values));
        }
        for &(address, output) in &self.words {
            bus.set_memory_word(address, output.of(values));
        }
        for &(place, output) in &self.places {
            state.set_place(place, output.of(values));
        }
        state.set_condition_flags(self.flags.map(|flag| flag.of(values) != 0));
        state.instructions += count * self.instructions;
        state.cycles = last_at + self.cycles;
        state.scoreboard.clear();
        if ahead.count > 0 {
            self.turns.next(values);
        }
    }
}
