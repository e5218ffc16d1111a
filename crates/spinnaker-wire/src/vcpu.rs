//! Cores as the monitor shows them in system RAM: one block each, states, error codes, mailboxes.

use core::fmt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{prefix, raw_enum, text_until_nul};
use crate::{AppId, Result};

/// Where the blocks begin; virtual core n has block n.
pub const BASE_ADDRESS: u32 = 0xE500_7000;
/// Bytes of a block.
pub const BYTES: usize = 128;
/// Bytes at its start that a kernel clears when it starts; the user words behind them stay.
pub const CLEARED_BYTES: usize = 0x70;

/// The address of a core's block; of the number the five bits that a core's number has.
pub const fn address(virtual_core: u8) -> u32 {
    BASE_ADDRESS + (virtual_core as u32 & 31) * BYTES as u32
}

/// A core's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Vcpu {
    /// r0..r7 at a run-time error.
    pub registers: [U32; 8],
    /// CPSR then.
    pub psr: U32,
    /// Stack pointer then.
    pub sp: U32,
    /// Link register then; also the last program counter that the watchdog saw.
    pub lr: U32,
    /// [`RunTimeError`], or the exit code of an event loop.
    pub rt_code: u8,
    /// Physical core.
    pub phys_cpu: u8,
    /// [`CoreState`].
    pub cpu_state: u8,
    /// [`AppId`].
    pub app_id: u8,
    /// Monitor to core: a message's address, or data.
    pub mbox_ap_msg: U32,
    /// Core to monitor: a message's address.
    pub mbox_mp_msg: U32,
    /// Monitor to core: a [`MailboxCommand`].
    pub mbox_ap_cmd: u8,
    /// Core to monitor: a [`MailboxCommand`].
    pub mbox_mp_cmd: u8,
    /// Software errors.
    pub sw_count: U16,
    /// Address of the file name of the last, in the core's memory.
    pub sw_file: U32,
    /// Its line.
    pub sw_line: U32,
    /// When the application was loaded, Unix seconds.
    pub time_s: U32,
    /// The application's name, NUL-padded.
    pub app_name: [u8; 16],
    /// Address of the first text block, 0 for none.
    pub iobuf: U32,
    /// Version of the kernel: major in bits 23:16, minor 15:8, patch 7:0.
    pub sw_ver: U32,
    /// Unused.
    pub pad: [U32; 4],
    /// For applications.
    pub user: [U32; 4],
}

const _: () = {
    assert!(size_of::<Vcpu>() == BYTES);
    assert!(core::mem::offset_of!(Vcpu, rt_code) == 0x2C);
    assert!(core::mem::offset_of!(Vcpu, mbox_ap_msg) == 0x30);
    assert!(core::mem::offset_of!(Vcpu, sw_count) == 0x3A);
    assert!(core::mem::offset_of!(Vcpu, app_name) == 0x48);
    assert!(core::mem::offset_of!(Vcpu, iobuf) == 0x58);
    assert!(core::mem::offset_of!(Vcpu, user) == CLEARED_BYTES);
};

impl Vcpu {
    /// Reads a block.
    ///
    /// # Errors
    /// [`crate::WireError::Truncated`].
    pub fn read(bytes: &[u8]) -> Result<&Self> {
        Ok(prefix("VCPU block", bytes)?.0)
    }

    /// What the core does.
    pub fn state(&self) -> CoreState {
        CoreState::from_raw(self.cpu_state)
    }

    /// Why it stopped, if it did.
    pub fn run_time_error(&self) -> RunTimeError {
        RunTimeError::from_raw(self.rt_code)
    }

    /// The application.
    pub fn app(&self) -> AppId {
        AppId(self.app_id)
    }

    /// The application's name, as far as it is UTF-8.
    pub fn name(&self) -> &str {
        text_until_nul(&self.app_name)
    }
}

impl fmt::Display for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.state(), self.name(), self.app())?;
        if self.state() == CoreState::RunTimeError {
            let [psr, sp, lr] = [self.psr, self.sp, self.lr].map(U32::get);
            write!(f, ": {} psr {psr:08x} sp {sp:08x} lr {lr:08x} registers", self.run_time_error())?;
            for register in self.registers {
                write!(f, " {:08x}", register.get())?;
            }
        }
        Ok(())
    }
}

raw_enum! {
    /// What a core does (VCPU field `cpu_state`).
    pub enum CoreState(u8) {
        /// Not there.
        Dead = 0 "DEAD",
        /// Without clock.
        PoweredDown = 1 "PWRDN",
        /// Stopped by a run-time error.
        RunTimeError = 2 "RTE",
        /// Does not answer the monitor.
        Watchdog = 3 "WDOG",
        /// Being started.
        Init = 4 "INIT",
        /// Started, waits for START.
        Wait = 5 "WAIT",
        /// Has entered `main`.
        Sark = 6 "SARK",
        /// Runs.
        Run = 7 "RUN",
        /// Waits for SYNC0.
        Sync0 = 8 "SYNC0",
        /// Waits for SYNC1.
        Sync1 = 9 "SYNC1",
        /// Paused.
        Pause = 10 "PAUSE",
        /// Has ended.
        Exit = 11 "EXIT",
        /// Runs the idle kernel.
        Idle = 15 "IDLE",
    }
}

impl CoreState {
    /// Whether it answers nothing.
    pub const fn is_dead(self) -> bool {
        self.raw() < 4
    }
}

raw_enum! {
    /// Why a core stopped (VCPU field `rt_code`).
    pub enum RunTimeError(u8) {
        /// It did not.
        None = 0 "none",
        /// Branch through address zero.
        Reset = 1 "RESET: branch through zero",
        /// Undefined instruction.
        Undefined = 2 "UNDEF: undefined instruction",
        /// Supervisor call.
        SupervisorCall = 3 "SVC: supervisor call",
        /// Prefetch abort.
        PrefetchAbort = 4 "PABT: prefetch abort",
        /// Data abort.
        DataAbort = 5 "DABT: data abort",
        /// Unhandled interrupt.
        Irq = 6 "IRQ: unhandled interrupt",
        /// Unhandled fast interrupt.
        Fiq = 7 "FIQ: unhandled fast interrupt",
        /// Unconfigured interrupt vector.
        Vector = 8 "VIC: unconfigured vector",
        /// The application gave up.
        Abort = 9 "ABORT: by the application",
        /// No memory.
        Malloc = 10 "MALLOC: no memory",
        /// Division by zero.
        DivideByZero = 11 "DIV0: division by zero",
        /// Event system.
        Event = 12 "EVENT: event system",
        /// Fatal software error.
        Software = 13 "SWERR: software error",
        /// No text block.
        IoBuffer = 14 "IOBUF: no text block",
        /// Bad interrupt enable.
        Enable = 15 "ENABLE: bad interrupt enable",
        /// Null pointer.
        Null = 16 "NULL: null pointer",
        /// Packet start-up failure.
        Packet = 17 "PKT: packet queue",
        /// Timer start-up failure.
        Timer = 18 "TIMER: timer",
        /// Event library failure.
        Api = 19 "API: event library",
        /// Kernel and monitor do not fit together.
        Version = 20 "VER: kernel does not fit the monitor",
    }
}

raw_enum! {
    /// What a mailbox holds.
    pub enum MailboxCommand(u8) {
        /// Nothing.
        Idle = 0 "IDLE",
        /// The address of a message.
        Message = 1 "MSG",
        /// Answer, that the monitor knows you are there.
        Nop = 2 "NOP",
        /// A signal's number.
        Signal = 3 "SIGNAL",
        /// A command.
        Command = 4 "CMD",
    }
}

/// A message in shared memory, as mailboxes point to it. Field `length` counts SDP header and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MessageBuffer {
    /// The next free one.
    pub next: U32,
    /// Bytes of header and body.
    pub length: U16,
    /// Used between chips.
    pub checksum: U16,
    /// Header, then body.
    pub message: [u8; 280],
    /// Unused.
    pub pad: U32,
}

const _: () = assert!(size_of::<MessageBuffer>() == 292);

impl MessageBuffer {
    /// Reads a buffer.
    ///
    /// # Errors
    /// [`crate::WireError::Truncated`].
    pub fn read(bytes: &[u8]) -> Result<&Self> {
        Ok(prefix("message buffer", bytes)?.0)
    }

    /// The message in it.
    ///
    /// # Errors
    /// [`crate::WireError::Truncated`] for a length below eight or beyond the buffer.
    pub fn packet(&self) -> Result<crate::sdp::Packet<'_>> {
        let bytes = crate::bytes::range("message buffer", &self.message, 0, self.length.get().into())?;
        crate::sdp::Packet::new_checked(bytes)
    }
}

/// Which hardware lock guards what (test-and-set registers of the system controller).
pub mod lock {
    /// Shared message buffers.
    pub const MESSAGES: u8 = 0;
    /// `sv.mbox_flags`.
    pub const MAILBOX_FLAGS: u8 = 1;
    /// Ethernet.
    pub const ETHERNET: u8 = 2;
    /// GPIO.
    pub const GPIO: u8 = 3;
    /// The event library.
    pub const API: u8 = 4;
    /// Semaphores.
    pub const SEMAPHORES: u8 = 5;
    /// Heaps.
    pub const HEAPS: u8 = 6;
    /// The router.
    pub const ROUTER: u8 = 7;
}

/// What the monitor keeps of an application, `sv.app_data[id]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AppData {
    /// Number of cores.
    pub cores: u8,
    /// Whether it has been cleaned up.
    pub clean: u8,
    /// Semaphore.
    pub semaphore: u8,
    /// Lowest virtual core of the first start.
    pub lead_core: u8,
    /// Its cores.
    pub mask: U32,
}

const _: () = assert!(size_of::<AppData>() == 8);

impl AppData {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`crate::WireError::Truncated`].
    pub fn read(bytes: &[u8]) -> Result<&Self> {
        Ok(prefix("application data", bytes)?.0)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_core_in_error_says_what_and_where() {
        let mut bytes = [0; BYTES];
        bytes[0x00] = 0x11;
        bytes[0x20] = 0x93;
        bytes[0x2C] = 5;
        bytes[0x2E] = 2;
        bytes[0x2F] = 30;
        bytes[0x48..0x4C].copy_from_slice(b"demo");
        let vcpu = Vcpu::read(&bytes).unwrap();
        assert_eq!((vcpu.state(), vcpu.run_time_error()), (CoreState::RunTimeError, RunTimeError::DataAbort));
        assert_eq!((vcpu.name(), vcpu.app()), ("demo", AppId(30)));
        let line = vcpu.to_string();
        assert!(line.starts_with("RTE \"demo\" app 30: DABT: data abort psr 00000093"), "{line}");
        assert!(Vcpu::read(&bytes[..127]).is_err());
        assert_eq!(address(17), 0xE500_7880);
    }

    #[test]
    fn states_keep_their_numbers() {
        for raw in 0..=255 {
            assert_eq!(CoreState::from_raw(raw).raw(), raw);
            assert_eq!(RunTimeError::from_raw(raw).raw(), raw);
        }
        assert_eq!(CoreState::from_raw(15), CoreState::Idle);
        assert!(CoreState::from_raw(3).is_dead() && !CoreState::from_raw(4).is_dead());
    }

    #[test]
    fn a_message_in_memory_knows_its_length() {
        let mut bytes = [0; 292];
        bytes[4] = 24;
        bytes[8] = 0x07;
        let buffer = MessageBuffer::read(&bytes).unwrap();
        assert_eq!(buffer.packet().unwrap().body.len(), 16);
        bytes[5] = 2;
        assert!(MessageBuffer::read(&bytes).unwrap().packet().is_err());
    }
}
