//! Watching a core: breakpoints, instruction trace, cycles by address. A core that nobody watches pays nothing for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv7::InstDecoder;

use super::beat::Recorder;
use super::bus::Bus;
use super::state::{DTCM_START, State};
use super::{Cpu, Exit};

/// An instruction that a core is about to execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// The core's clock, in cycles, before the instruction waits for its operands.
    pub cycles: u64,
    /// Where the instruction lies.
    pub address: u32,
    /// Whether it is a Thumb instruction.
    pub thumb: bool,
    /// The instruction: 16 bits in Thumb state. Nothing where it could not be fetched by looking (code on the bus).
    pub word: Option<u32>,
}

/// One line: clock, address, instruction word and text.
impl fmt::Display for Traced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:>12} {:08x} ", self.cycles, self.address)?;
        match self.word {
            Some(word) if self.thumb => write!(formatter, "    {word:04x} {}", disassemble(word, true)),
            Some(word) => write!(formatter, "{word:08x} {}", disassemble(word, false)),
            None => write!(formatter, "........"),
        }
    }
}

/// The assembly of an instruction (16 bits in Thumb state); "undefined" for what is none.
#[must_use]
pub fn disassemble(word: u32, thumb: bool) -> String {
    let decoder = InstDecoder::armv5().with_thumb_mode(thumb);
    let bytes = word.to_le_bytes();
    // The halves of a Thumb BL are instructions of their own here, and a pair for the disassembler.
    let half = match word >> 11 {
        0b11101 => "blx.suffix",
        0b11110 => "bl.prefix",
        0b11111 => "bl.suffix",
        _ => "",
    };
    if thumb && !half.is_empty() {
        return format!("{half} #{:#x}", word & 0x7ff);
    }
    let length = if thumb { 2 } else { 4 };
    match decoder.decode(&mut U8Reader::new(&bytes[..length])) {
        Ok(instruction) => instruction.to_string(),
        Err(_) => "undefined".into(),
    }
}

/// What an address has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Instructions executed there.
    pub instructions: u64,
    /// Cycles that they took, with what they waited for.
    pub cycles: u64,
}

/// Who gets the trace: called before each instruction.
pub type TraceSink = Box<dyn FnMut(&Traced) + Send>;

/// What is watched in a core.
#[derive(Default)]
pub(super) struct Debug {
    pub breakpoints: BTreeSet<u32>,
    pub sink: Option<TraceSink>,
    pub profile: Option<BTreeMap<u32, Spent>>,
    /// Number of the instruction to stop before, once.
    pub stop_at: Option<u64>,
    /// Address and instruction count of the breakpoint that was last reported, which the next `run` passes.
    pub reported: Option<(u32, u64)>,
    /// Records a beat.
    pub recorder: Option<Recorder>,
}

impl Debug {
    pub fn is_idle(&self) -> bool {
        !self.is_seen() && self.recorder.is_none()
    }

    /// Whether anybody wants to see instructions.
    pub fn is_seen(&self) -> bool {
        !self.breakpoints.is_empty() || self.sink.is_some() || self.profile.is_some() || self.stop_at.is_some()
    }

    /// Whether to stop before the instruction at an address, which is number `instructions`.
    pub fn stops(&mut self, address: u32, instructions: u64) -> bool {
        let here = Some((address, instructions));
        let wanted = self.breakpoints.contains(&address) || self.stop_at.is_some_and(|at| instructions >= at);
        if self.reported == here || !wanted {
            return false;
        }
        self.reported = here;
        self.stop_at = None;
        true
    }

    /// Notes what an instruction took.
    pub fn spend(&mut self, address: u32, cycles: u64) {
        if let Some(profile) = &mut self.profile {
            let spent = profile.entry(address).or_default();
            spent.instructions += 1;
            spent.cycles += cycles;
        }
    }
}

impl fmt::Debug for Debug {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { breakpoints, sink, profile, stop_at, reported, recorder } = self;
        formatter
            .debug_struct("Debug")
            .field("breakpoints", breakpoints)
            .field("sink", &sink.is_some())
            .field("profile", profile)
            .field("stop_at", stop_at)
            .field("reported", reported)
            .field("recorder", &recorder.is_some())
            .finish()
    }
}

impl Cpu {
    /// Executes what would be a block, instruction by instruction: a core that is watched does the same as one that is
    /// not, and passes `until` as far.
    pub(super) fn run_watched<B: Bus>(&mut self, bus: &mut B, until: u64) -> Option<Exit> {
        let start = self.state.pc;
        let end = self.cache.block_end(&mut self.state);
        loop {
            let (address, thumb) = (self.state.pc, self.state.thumb);
            let (cycles, instructions) = (self.state.cycles, self.state.instructions);
            if self.debug.as_mut().is_some_and(|debug| debug.stops(address, instructions)) {
                return Some(Exit::Breakpoint);
            }
            if self.step_watched(bus) {
                return Some(Exit::Attention);
            }
            let next = address.wrapping_add(if thumb { 2 } else { 4 });
            let follows = self.state.pc == next && self.state.thumb == thumb && next < end;
            let goes_on = follows && !self.state.waiting && !self.state.is_interrupted();
            if !goes_on || self.cache.splits_after(start, thumb, address, self.state.cycles - cycles) {
                return (self.state.cycles >= until && !self.state.waiting).then_some(Exit::Until);
            }
        }
    }

    /// Executes one instruction by the plain interpreter and tells the watcher. Gives whether the bus asks for attention.
    pub(super) fn step_watched<B: Bus>(&mut self, bus: &mut B) -> bool {
        let State { pc: address, thumb, cycles, .. } = self.state;
        if let Some(sink) = self.debug.as_mut().and_then(|debug| debug.sink.as_mut()) {
            let word = (address < DTCM_START).then(|| {
                let word = self.state.itcm_word(address);
                if thumb { word >> ((address & 2) * 8) & 0xffff } else { word }
            });
            sink(&Traced { cycles, address, thumb, word });
        }
        if let Some(debug) = &mut self.debug
            && let Some(recorder) = &mut debug.recorder
            && !recorder.follow(&self.state, bus)
        {
            debug.recorder = None;
            self.watch(|_| {});
        }
        let attention = self.step_plainly(bus);
        let spent = self.state.cycles - cycles;
        if let Some(debug) = &mut self.debug {
            debug.spend(address, spent);
        }
        attention
    }

    /// Sets or removes a breakpoint: `run` stops with [`Exit::Breakpoint`] before it executes the instruction at this
    /// address, and passes it when called again.
    pub fn set_breakpoint(&mut self, address: u32, set: bool) {
        self.watch(|debug| {
            if set {
                debug.breakpoints.insert(address);
            } else {
                debug.breakpoints.remove(&address);
            }
        });
    }

    /// Has `run` stop with [`Exit::Breakpoint`] after so many more instructions, once; `None`: not any more. An interrupt
    /// that is taken is no instruction.
    pub fn stop_after(&mut self, instructions: Option<u64>) {
        let at = instructions.map(|count| self.state.instructions + count);
        self.watch(|debug| debug.stop_at = at);
    }

    /// Gives every instruction to a sink before it is executed, or to nobody any more.
    pub fn set_trace(&mut self, sink: Option<TraceSink>) {
        self.watch(|debug| debug.sink = sink);
    }

    /// Starts to count instructions and cycles by address, from zero, or stops.
    pub fn set_profile(&mut self, on: bool) {
        self.watch(|debug| debug.profile = on.then(BTreeMap::new));
    }

    /// Instructions and cycles by address since the profile was started.
    #[must_use]
    pub fn profile(&self) -> Option<&BTreeMap<u32, Spent>> {
        self.debug.as_ref()?.profile.as_ref()
    }

    /// Has this core watched as another was, which is not any more.
    pub(crate) fn watch_instead_of(&mut self, other: &mut Self) {
        self.debug = other.debug.take();
        if let Some(debug) = &mut self.debug {
            // These count the other's instructions.
            (debug.stop_at, debug.reported) = (debug.stop_at.map(|_| self.state.instructions), None);
        }
    }

    pub(super) fn watch(&mut self, change: impl FnOnce(&mut Debug)) {
        let debug = self.debug.get_or_insert_default();
        change(debug);
        if debug.is_idle() {
            self.debug = None;
        }
    }
}
