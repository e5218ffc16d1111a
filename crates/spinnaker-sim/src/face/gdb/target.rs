//! One core as the debugger's protocol sees it.

use std::collections::BTreeSet;
use std::convert::Infallible;

use gdbstub::common::Signal;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep, SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{Breakpoints, BreakpointsOps, SwBreakpoint, SwBreakpointOps};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps, outputln};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::arm::reg::ArmCoreRegs;
use gdbstub_arch::arm::{ArmBreakpointKind, Armv4t};
use spinnaker_machine::ChipXy;

use super::super::{CycleBoard, VirtualBoard};
use crate::arm968::Cpu;

/// A board and the core of it that is debugged.
pub(super) struct Debuggee {
    pub board: CycleBoard,
    pub chip: ChipXy,
    /// Physical number.
    pub core: u8,
    pub breakpoints: BTreeSet<u32>,
    /// The debugger waits for one instruction.
    pub stepping: bool,
}

impl Debuggee {
    fn cpu(&mut self) -> TargetResult<&mut Cpu, Self> {
        self.board.machine().cpu(self.chip, self.core).ok_or(TargetError::NonFatal)
    }

    /// Lets the core go on; with a number, for so many instructions.
    fn go(&mut self, instructions: Option<u64>) {
        self.stepping = instructions.is_some();
        let (chip, core) = (self.chip, self.core);
        let machine = self.board.machine();
        machine.settle(chip, core);
        if let Some(cpu) = machine.cpu(chip, core) {
            cpu.stop_after(instructions);
        }
        machine.release(chip, core);
    }

    /// Sets the breakpoints in the core, or removes them.
    pub fn set_breakpoints(&mut self, set: bool) {
        let breakpoints = self.breakpoints.clone();
        self.board.machine().settle(self.chip, self.core);
        if let Ok(cpu) = self.cpu() {
            breakpoints.iter().for_each(|&address| cpu.set_breakpoint(address, set));
        }
    }

    /// The debugger has gone: nothing of it stays.
    pub fn let_go(&mut self) {
        self.set_breakpoints(false);
        self.breakpoints.clear();
        self.go(None);
        self.board.machine().set_halting(false);
    }
}

impl Target for Debuggee {
    type Arch = Armv4t;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, Armv4t, Infallible> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    // On one computer bytes cost nothing, and simple clients cannot expand them.
    fn use_rle(&self) -> bool {
        false
    }

    // The core steps by itself; a debugger that plants breakpoints for a step may do so.
    fn guard_rail_implicit_sw_breakpoints(&self) -> bool {
        true
    }
}

impl SingleThreadBase for Debuggee {
    fn read_registers(&mut self, registers: &mut ArmCoreRegs) -> TargetResult<(), Self> {
        let cpu = self.cpu()?;
        registers.r = std::array::from_fn(|register| cpu.register(register));
        (registers.sp, registers.lr, registers.pc) = (cpu.register(13), cpu.register(14), cpu.pc());
        registers.cpsr = cpu.cpsr();
        Ok(())
    }

    fn write_registers(&mut self, registers: &ArmCoreRegs) -> TargetResult<(), Self> {
        let cpu = self.cpu()?;
        // Mode and state first: they choose which registers the others are.
        cpu.set_cpsr(registers.cpsr);
        registers.r.iter().enumerate().for_each(|(register, &value)| cpu.set_register(register, value));
        cpu.set_register(13, registers.sp);
        cpu.set_register(14, registers.lr);
        cpu.set_pc(registers.pc);
        Ok(())
    }

    fn read_addrs(&mut self, address: u32, data: &mut [u8]) -> TargetResult<usize, Self> {
        match self.board.machine().look(self.chip, self.core, address, data) {
            0 if !data.is_empty() => Err(TargetError::NonFatal),
            count => Ok(count),
        }
    }

    fn write_addrs(&mut self, address: u32, data: &[u8]) -> TargetResult<(), Self> {
        let done = self.board.machine().alter(self.chip, self.core, address, data);
        if done { Ok(()) } else { Err(TargetError::NonFatal) }
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadResume for Debuggee {
    fn resume(&mut self, _signal: Option<Signal>) -> Result<(), Infallible> {
        self.go(None);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Debuggee {
    fn step(&mut self, _signal: Option<Signal>) -> Result<(), Infallible> {
        self.go(Some(1));
        Ok(())
    }
}

impl Breakpoints for Debuggee {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

/// By address: the memory stays as it is.
impl SwBreakpoint for Debuggee {
    fn add_sw_breakpoint(&mut self, address: u32, _kind: ArmBreakpointKind) -> TargetResult<bool, Self> {
        let (chip, core) = (self.chip, self.core);
        self.board.machine().settle(chip, core);
        self.cpu()?.set_breakpoint(address, true);
        self.breakpoints.insert(address);
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, address: u32, _kind: ArmBreakpointKind) -> TargetResult<bool, Self> {
        self.cpu()?.set_breakpoint(address, false);
        Ok(self.breakpoints.remove(&address))
    }
}

impl MonitorCmd for Debuggee {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Infallible> {
        match command.trim_ascii() {
            b"time" => {
                let now_ns = self.board.now_ns();
                let clock = self.cpu().map(|cpu| (cpu.cycles(), cpu.instructions())).ok();
                outputln!(out, "machine time {} ns", now_ns);
                if let Some((cycles, instructions)) = clock {
                    outputln!(out, "core at cycle {}, {} instructions executed", cycles, instructions);
                }
            }
            b"snapshot" => outputln!(out, "{}", self.board.snapshot().trim_end()),
            _ => outputln!(out, "commands: time, snapshot"),
        }
        Ok(())
    }
}
