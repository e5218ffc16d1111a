//! Messages and signals from the monitor: the mailbox in this core's block (SpiNNaker tools, `sark_base.c` and `scamp`).
//!
//! Answers to SCP are the official kernel's, codes included; with two differences. An address that is not aligned to its unit is a bad
//! argument here, not the end of the core. And RUN, which kernels since version 1 refuse, is there: it leaves this program for code
//! that the host has written to shared memory.
//! Of the signals, START and EXIT mean something to a program that only computes; the synchronisation signals are flags of the chip.

use spidnn_core::program::VERSION;

use crate::device::system::{self, Lock};
use crate::device::{ByteCell, HalfCell, Register};
use crate::monitor::{self, ByteField, Field, Vcpu};
use crate::{fault, interrupt};

/// Commands in a mailbox.
const IDLE: u8 = 0;
const MESSAGE: u8 = 1;
const PING: u8 = 2;
const SIGNAL: u8 = 3;
/// The signal that ends the state WAIT.
const SIGNAL_START: u32 = 3;
/// The signal that ends the program.
const SIGNAL_EXIT: u32 = 8;

/// Offsets in a message buffer: next buffer, length, SDP header, command, sequence number, arguments.
mod message {
    pub const NEXT: u32 = 0;
    pub const LENGTH: u32 = 4;
    pub const FLAGS_TAG_PORTS: u32 = 8;
    pub const ADDRESSES: u32 = 12;
    pub const COMMAND: u32 = 16;
    pub const ARGUMENTS: u32 = 20;
}

/// Commands of SCP that a core answers.
mod command {
    pub const VERSION: u32 = 0;
    pub const RUN: u32 = 1;
    pub const READ: u32 = 2;
    pub const WRITE: u32 = 3;
    pub const FILL: u32 = 5;
}
const RETURN_OK: u32 = 0x80;
const RETURN_LENGTH: u32 = 0x81;
const RETURN_COMMAND: u32 = 0x83;
const RETURN_ARGUMENT: u32 = 0x84;
/// Name and version as texts that end with a zero, filled up to words.
const NAME: [u8; 24] = {
    let mut name = *b"SpiDNN/SpiNNaker\00.0.0\0\0";
    assert!(VERSION < 10);
    name[17] += VERSION as u8;
    name
};
/// What code that is run has to lie in: SDRAM, cached or not, or system RAM. (Data memory is not for code, and instruction memory holds
/// this program, whose beginning may be gone already.)
const SHARED: [(u32, u32); 3] = [(0x6000_0000, 0x6800_0000), (0x7000_0000, 0x7800_0000), (0xE500_0000, 0xE500_8000)];
/// SDP header and command with sequence number.
const HEADER_BYTES: u32 = 12;
const ARGUMENT_BYTES: u32 = 12;
const DATA_BYTES_MAX: u32 = 256;
/// Bit 7 of the flags: a reply is expected (flags 0x87).
const REPLY_EXPECTED: u32 = 0x80;

/// Does what the monitor asks; called by the interrupt handler.
pub fn serve(vcpu: Vcpu) {
    system::clear_interrupt(vcpu.physical_core);
    let command = vcpu.byte(ByteField::FromMonitor).read();
    if command == IDLE {
        // A synchronisation flag has changed.
        return;
    }
    let data = vcpu.field(Field::FromMonitor).read();
    if command == PING {
        vcpu.field(Field::FromMonitor).write(interrupt::interrupted());
    }
    vcpu.byte(ByteField::FromMonitor).write(IDLE);
    match command {
        MESSAGE => answer(vcpu, data),
        SIGNAL if data == SIGNAL_START => interrupt::start(),
        SIGNAL if data == SIGNAL_EXIT => interrupt::leave(fault::ended as *const () as u32),
        _ => {}
    }
}

/// Answers an SCP request in the buffer that it came in, or gives the buffer back.
fn answer(vcpu: Vcpu, buffer: u32) {
    let word = |offset: u32| Register::at(buffer + offset);
    let header = word(message::FLAGS_TAG_PORTS).read();
    // Ports other than the kernel's are the program's, which has none.
    let port = header >> 21 & 7;
    if header & REPLY_EXPECTED == 0 || port != 0 || vcpu.byte(ByteField::ToMonitor).read() != IDLE {
        free(buffer);
        return;
    }
    let length = word(message::LENGTH).read() & 0xFFFF;
    let request = word(message::COMMAND).read();
    let target = word(message::ARGUMENTS).read();
    let (code, bytes) = if length < HEADER_BYTES + ARGUMENT_BYTES {
        (RETURN_LENGTH, 0)
    } else {
        execute(vcpu, request & 0xFFFF, buffer)
    };
    word(message::COMMAND).write(request & 0xFFFF_0000 | code);
    word(message::LENGTH).write(HEADER_BYTES + bytes);
    // The reply goes where the request came from: flags 0x07, ports and addresses exchanged.
    let (destination, source) = (header >> 16 & 0xFF, header >> 24);
    word(message::FLAGS_TAG_PORTS).write(0x07 | header & 0xFF00 | source << 16 | destination << 24);
    let addresses = word(message::ADDRESSES).read();
    word(message::ADDRESSES).write(addresses.rotate_left(16));
    send(vcpu, buffer);
    if request & 0xFFFF == command::RUN && code == RETURN_OK {
        interrupt::leave(target);
    }
}

/// Executes a request: return code and bytes of data that follow it.
fn execute(vcpu: Vcpu, request: u32, buffer: u32) -> (u32, u32) {
    let argument = |n: u32| Register::at(buffer + message::ARGUMENTS + 4 * n);
    let (address, length, unit) = (argument(0).read(), argument(1).read(), argument(2).read());
    match request {
        command::VERSION => {
            argument(0).write(monitor::chip() << 16 | vcpu.physical_core << 8 | vcpu.virtual_core);
            argument(1).write(0xFFFF_0000 | DATA_BYTES_MAX);
            argument(2).write(0);
            for (n, text) in NAME.chunks_exact(4).enumerate() {
                argument(3 + n as u32).write(u32::from_le_bytes([text[0], text[1], text[2], text[3]]));
            }
            (RETURN_OK, ARGUMENT_BYTES + NAME.len() as u32)
        }
        command::READ | command::WRITE if length > DATA_BYTES_MAX || unit > 2 || address & ((1 << unit) - 1) != 0 => {
            (RETURN_ARGUMENT, 0)
        }
        command::READ => {
            copy(address, buffer + message::ARGUMENTS, length, unit);
            (RETURN_OK, length)
        }
        command::WRITE => {
            copy(buffer + message::ARGUMENTS + ARGUMENT_BYTES, address, length, unit);
            (RETURN_OK, 0)
        }
        command::FILL if (address | unit) & 3 != 0 => (RETURN_ARGUMENT, 0),
        command::FILL => {
            // Its length is the third argument, the word the second.
            for offset in (0..unit).step_by(4) {
                Register::at(address.wrapping_add(offset)).write(length);
            }
            (RETURN_OK, 0)
        }
        command::RUN => {
            let is_code = SHARED.iter().any(|&(start, end)| (start..end).contains(&address));
            (if is_code { RETURN_OK } else { RETURN_ARGUMENT }, 0)
        }
        _ => (RETURN_COMMAND, 0),
    }
}

/// Copies by bytes, half-words or words (unit 0, 1, 2), as many whole ones as there are.
fn copy(from: u32, to: u32, bytes: u32, unit: u32) {
    for n in 0..bytes >> unit {
        let at = n << unit;
        match unit {
            0 => ByteCell::at(to + at).write(ByteCell::at(from + at).read()),
            1 => HalfCell::at(to + at).write(HalfCell::at(from + at).read()),
            _ => Register::at(to + at).write(Register::at(from + at).read()),
        }
    }
}

/// Hands a buffer to the monitor.
fn send(vcpu: Vcpu, buffer: u32) {
    vcpu.field(Field::ToMonitor).write(buffer);
    vcpu.byte(ByteField::ToMonitor).write(MESSAGE);
    let rings = system::locked(Lock::Mailboxes, || {
        let flags = monitor::MAILBOX_FLAGS.read();
        monitor::MAILBOX_FLAGS.write(flags | 1 << vcpu.virtual_core);
        flags == 0
    });
    if rings {
        system::ring_monitor();
    }
}

/// Gives a buffer back to the pool.
fn free(buffer: u32) {
    system::locked(Lock::Messages, || {
        Register::at(buffer + message::NEXT).write(monitor::FREE_MESSAGE.read());
        monitor::FREE_MESSAGE.write(buffer);
        let counts = monitor::MESSAGES_IN_USE.read();
        monitor::MESSAGES_IN_USE.write(counts & 0xFFFF_0000 | (counts & 0xFFFF).saturating_sub(1));
    });
}
