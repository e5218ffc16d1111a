//! The processor: an ARM968E-S, instruction by instruction and cycle by cycle.
//!
//! [`Cpu`] is one core with its two tightly coupled memories. Everything else it reaches through a [`Bus`]. Its clock
//! counts its own cycles; [`Cpu::run`] lets it run until a cycle.
//!
//! # What is exact and what is approximated
//!
//! * All of ARMv5TE, ARM and Thumb, little-endian. Bits of the control register that choose big-endian data or switch
//!   a tightly coupled memory off are remembered and do nothing.
//! * Timing is that of the reference page arm968.md, sections 9 to 12 (`timing`). A data access to instruction memory
//!   delays its instruction by one cycle, however many words it moves.
//! * Code outside of instruction memory is fetched word by word, every instruction anew.
//! * Stores wait as long as the bus says: whether an address is buffered is the bus's to know.
//! * Where the manual says unpredictable, the core does something harmless: it ignores fields that should be zero or one;
//!   writes to PC that are no branches, mode numbers that do not exist, the Thumb bit in MSR, and write-back to PC have no
//!   effect; a loaded base wins over its write-back; STM stores the old base if that comes first in its list and the new one
//!   otherwise; an empty list moves nothing; an odd address in ARM state counts as aligned.
//! * A core that is stepped or watched takes the same cycles as one that runs compiled code, to the cycle.

use std::sync::Arc;

mod arithmetic;
mod beat;
mod bus;
mod cache;
mod compile;
mod debug;
mod decode_arm;
mod decode_thumb;
mod engine;
mod execute;
mod instruction;
mod op;
mod repeat;
mod schedule;
mod state;
mod store;
mod timing;

pub(crate) use beat::{Ahead, Beat};
pub use bus::{Access, Bus, BusError, Size};
pub use debug::{Spent, TraceSink, Traced, disassemble};
pub use state::{DTCM_BYTES, DTCM_START, ITCM_BYTES, Mode};
pub use store::CodeStore;

use beat::Recorder;
use cache::BlockCache;
use debug::Debug;
use engine::{Stop, run_blocks};
use state::{Exception, State, TCM_END};
use timing::EXCEPTION_CYCLES;

/// No run goes on for longer: room for sums of cycles. At 200 MHz this is 700 years.
const CYCLES_MAX: u64 = 1 << 62;

/// Why [`Cpu::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The clock has reached the cycle that was asked for.
    Until,
    /// The core sleeps until an interrupt line rises. Its clock stands still: set it with [`Cpu::set_cycles`] before
    /// the line rises.
    WaitForInterrupt,
    /// The bus asked for the caller's attention.
    Attention,
    /// The next instruction has a breakpoint.
    Breakpoint,
}

/// One ARM968E-S core.
#[derive(Debug)]
pub struct Cpu {
    state: State,
    cache: BlockCache,
    debug: Option<Box<Debug>>,
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Cpu {
    /// A core after power-up: memories and registers zero, then [`Cpu::reset`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_code_store(CodeStore::new())
    }

    /// As [`Cpu::new`], with compiled code to share with other cores.
    #[must_use]
    pub fn with_code_store(store: CodeStore) -> Self {
        Self { state: State::new(), cache: BlockCache::new(store), debug: None }
    }

    /// The reset input: Supervisor mode, interrupts masked, PC = 0xFFFF0000 (high vectors). Memories, general registers,
    /// the clock and the instruction counter keep their values.
    pub fn reset(&mut self) {
        self.state.reset();
    }

    /// The core's clock, in cycles.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.state.cycles
    }

    /// Sets the clock.
    pub fn set_cycles(&mut self, cycles: u64) {
        self.state.cycles = cycles;
        self.state.scoreboard.clear();
    }

    /// Instructions executed since the core was made, those with a failed condition included.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        self.state.instructions
    }

    /// Sets the two interrupt lines, outputs of the interrupt controller.
    pub fn set_lines(&mut self, irq: bool, fiq: bool) {
        self.state.irq_line = irq;
        self.state.fiq_line = fiq;
    }

    /// Whether the core sleeps in wait-for-interrupt.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.state.waiting
    }

    /// Runs until the clock has reached `until` or something happens that the caller must see to. The clock may pass `until`
    /// by what is left of a block of code: up to 64 instructions.
    pub fn run<B: Bus>(&mut self, bus: &mut B, until: u64) -> Exit {
        self.state.quiet_until = 0;
        let until = until.min(CYCLES_MAX);
        loop {
            if let Some(exit) = self.begin_instruction(until) {
                return exit;
            }
            if self.debug.is_some() {
                match self.run_watched(bus, until) {
                    Some(exit) => return exit,
                    None => continue,
                }
            }
            match run_blocks(&mut self.state, &mut self.cache, bus, until) {
                Stop::Until => return Exit::Until,
                Stop::Attention => return Exit::Attention,
                Stop::Status => {}
                Stop::Plain => {
                    if self.step_plainly(bus) {
                        return Exit::Attention;
                    }
                }
            }
        }
    }

    /// Executes one instruction (or none, asleep): as `run` would, but never more.
    pub fn step<B: Bus>(&mut self, bus: &mut B) -> Exit {
        self.state.quiet_until = 0;
        if let Some(exit) = self.begin_instruction(u64::MAX) {
            return exit;
        }
        let attention = if self.debug.is_some() { self.step_watched(bus) } else { self.step_plainly(bus) };
        if attention { Exit::Attention } else { Exit::Until }
    }

    /// Wakes the core, and takes an interrupt. Gives why it cannot go on.
    fn begin_instruction(&mut self, until: u64) -> Option<Exit> {
        if self.state.waiting {
            if !self.state.irq_line && !self.state.fiq_line {
                self.state.quiet_until = u64::MAX;
                return Some(Exit::WaitForInterrupt);
            }
            self.state.waiting = false;
        }
        if self.state.cycles >= until {
            return Some(Exit::Until);
        }
        self.take_interrupt();
        None
    }

    /// Executes one instruction by the plain interpreter and gives whether the bus asks for attention.
    fn step_plainly<B: Bus>(&mut self, bus: &mut B) -> bool {
        let used_bus = execute::step(&mut self.state, bus);
        if let Some((low, high)) = self.state.code_written.take() {
            self.cache.invalidate(&mut self.state, low, high);
        }
        used_bus && bus.attention()
    }

    /// After `run`: the cycle before which the core will use the bus for nothing that has an effect, however long it is
    /// left to run, as long as its interrupt lines do not change and nobody writes to its tightly coupled memories. A
    /// core that sleeps, polls or counts need not be run before. `u64::MAX`: not by itself.
    #[must_use]
    pub fn quiet_until(&self) -> u64 {
        self.state.quiet_until.max(self.state.cycles)
    }

    /// From here, where the core sleeps, to where it sleeps next, its way is recorded.
    pub(crate) fn record_beat<B: Bus>(&mut self, bus: &B) {
        let recorder = Recorder::new(&self.state, bus);
        self.watch(|debug| debug.recorder = Some(recorder));
    }

    /// Ends the recording where the core sleeps again, `cycles` after it woke. Nothing if it cannot be done without instructions.
    pub(crate) fn take_beat<B: Bus>(&mut self, bus: &B, cycles: u64) -> Option<Arc<Beat>> {
        let recorder = self.debug.as_mut()?.recorder.take();
        self.watch(|_| {});
        let (beat, literals) = recorder?.beat(&self.state, bus, cycles)?;
        Some(self.cache.keep(&mut self.state, beat, &literals))
    }

    /// How many such beats, one after the other, the core would make that sleeps, if it is woken and nothing but the bus
    /// answers as it did; at most so many. Notes in `ahead` what the first one computes.
    pub(crate) fn beats<B: Bus>(&self, beat: &Beat, bus: &B, most: u64, ahead: &mut Ahead) -> u64 {
        beat.count(&self.state, bus, most, ahead)
    }

    /// Makes so many of the beats that [`Cpu::beats`] found ahead; the last one begins at a cycle.
    pub(crate) fn make_beats<B: Bus>(&mut self, beat: &Beat, bus: &mut B, ahead: &mut Ahead, count: u64, last_at: u64) {
        beat.make(&mut self.state, bus, ahead, count, last_at);
    }

    /// Whether somebody watches the core who wants to see each instruction.
    pub(crate) fn is_watched(&self) -> bool {
        self.debug.as_ref().is_some_and(|debug| debug.is_seen())
    }

    /// A number that changes when code of the core, or what was recorded as such, is written.
    pub(crate) fn code_version(&self) -> u64 {
        self.cache.version()
    }

    fn take_interrupt(&mut self) {
        let exception =
            match (self.state.fiq_line && !self.state.fiq_masked, self.state.irq_line && !self.state.irq_masked) {
                (true, _) => Exception::Fiq,
                (false, true) => Exception::Irq,
                (false, false) => return,
            };
        let return_address = self.state.pc.wrapping_add(4);
        if let Some(recorder) = self.debug.as_mut().and_then(|debug| debug.recorder.as_mut()) {
            recorder.interrupted(&self.state, exception, return_address);
        }
        self.state.enter_exception(exception, return_address);
        self.state.cycles += EXCEPTION_CYCLES;
    }

    /// Address of the next instruction.
    #[must_use]
    pub fn pc(&self) -> u32 {
        self.state.pc
    }

    /// Sets the address of the next instruction, in the present state (ARM or Thumb).
    pub fn set_pc(&mut self, address: u32) {
        self.state.branch(address);
    }

    /// A register of the present mode; 15 is the address of the next instruction.
    ///
    /// # Panics
    ///
    /// If there is no such register.
    #[must_use]
    pub fn register(&self, register: usize) -> u32 {
        if register == 15 { self.state.pc } else { self.state.r[register] }
    }

    /// Sets a register of the present mode.
    ///
    /// # Panics
    ///
    /// If there is no such register.
    pub fn set_register(&mut self, register: usize, value: u32) {
        if register == 15 {
            self.set_pc(value);
        } else {
            self.state.r[register] = value;
        }
    }

    /// The current program status register.
    #[must_use]
    pub fn cpsr(&self) -> u32 {
        self.state.cpsr()
    }

    /// Sets flags, interrupt masks, state and mode.
    pub fn set_cpsr(&mut self, value: u32) {
        self.state.set_cpsr(value);
    }

    /// The saved program status register of the present mode (CPSR where it has none).
    #[must_use]
    pub fn spsr(&self) -> u32 {
        self.state.spsr()
    }

    /// The present mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.state.mode()
    }

    /// Coprocessor 15's control register.
    #[must_use]
    pub fn control(&self) -> u32 {
        self.state.control
    }

    /// Sets coprocessor 15's control register, as MCR does.
    pub fn set_control(&mut self, value: u32) {
        self.state.write_cp15(1, 0, 0, value);
    }

    /// Instruction memory.
    #[must_use]
    pub fn itcm(&self) -> &[u8; ITCM_BYTES] {
        &self.state.itcm
    }

    /// Data memory.
    #[must_use]
    pub fn dtcm(&self) -> &[u8; DTCM_BYTES] {
        &self.state.dtcm
    }

    /// Data memory, to write to. Not while the core's own `run` is on the stack, as for a DMA.
    pub fn dtcm_mut(&mut self) -> &mut [u8; DTCM_BYTES] {
        &mut self.state.dtcm
    }

    /// Reads from the tightly coupled memories, as DMA and debugger do.
    ///
    /// # Errors
    ///
    /// [`BusError`] where the range is not within one of them.
    pub fn read_tcm(&self, address: u32, bytes: &mut [u8]) -> Result<(), BusError> {
        let (memory, offset) = self.tcm(address);
        let source = memory.get(offset..).and_then(|memory| memory.get(..bytes.len())).ok_or(BusError)?;
        bytes.copy_from_slice(source);
        Ok(())
    }

    /// Writes to the tightly coupled memories, as DMA and debugger do; code that changes is executed changed.
    ///
    /// # Errors
    ///
    /// [`BusError`] where the range is not within one of them; nothing is written then.
    pub fn write_tcm(&mut self, address: u32, bytes: &[u8]) -> Result<(), BusError> {
        let offset = self.tcm(address).1;
        let memory: &mut [u8] = match address {
            0..DTCM_START => &mut self.state.itcm[..],
            DTCM_START..TCM_END => &mut self.state.dtcm[..],
            _ => &mut [],
        };
        let target = memory.get_mut(offset..).and_then(|memory| memory.get_mut(..bytes.len())).ok_or(BusError)?;
        target.copy_from_slice(bytes);
        if address < DTCM_START && !bytes.is_empty() {
            let (low, high) = (offset as u32 & !3, (offset + bytes.len() - 1) as u32 & !3);
            self.cache.invalidate(&mut self.state, low, high);
        }
        Ok(())
    }

    /// The memory that an address lies in and the offset there; outside, an offset past the end.
    fn tcm(&self, address: u32) -> (&[u8], usize) {
        let offset = address as usize;
        match address {
            0..DTCM_START => (&self.state.itcm[..], offset & (ITCM_BYTES - 1)),
            DTCM_START..TCM_END => (&self.state.dtcm[..], offset & (DTCM_BYTES - 1)),
            _ => (&[], 1),
        }
    }
}
