//! Messages and signals from the monitor: the mailbox in this core's block (SpiNNaker tools, `sark_base.c` and `scamp`).

use crate::device::Register;
use crate::device::system::{self, Lock};
use crate::interrupt;
use crate::monitor::{self, ByteField, Field, Vcpu};

/// Commands in a mailbox.
const IDLE: u8 = 0;
const MESSAGE: u8 = 1;
const SIGNAL: u8 = 3;
/// The signal that ends the state WAIT.
const SIGNAL_START: u32 = 3;

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
    pub const READ: u32 = 2;
    pub const WRITE: u32 = 3;
}
const RETURN_OK: u32 = 0x80;
const RETURN_LENGTH: u32 = 0x81;
const RETURN_COMMAND: u32 = 0x83;
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
    vcpu.byte(ByteField::FromMonitor).write(IDLE);
    match command {
        MESSAGE => answer(vcpu, data),
        SIGNAL if data == SIGNAL_START => interrupt::start(),
        _ => {}
    }
}

/// Answers an SCP request in the buffer that it came in, or gives the buffer back.
fn answer(vcpu: Vcpu, buffer: u32) {
    let word = |offset: u32| Register::at(buffer + offset);
    let header = word(message::FLAGS_TAG_PORTS).read();
    if header & REPLY_EXPECTED == 0 || vcpu.byte(ByteField::ToMonitor).read() != IDLE {
        free(buffer);
        return;
    }
    let length = word(message::LENGTH).read() & 0xFFFF;
    let request = word(message::COMMAND).read();
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
}

/// Executes a request: return code and bytes of data that follow it.
fn execute(vcpu: Vcpu, request: u32, buffer: u32) -> (u32, u32) {
    let argument = |n: u32| Register::at(buffer + message::ARGUMENTS + 4 * n);
    let (address, length) = (argument(0).read(), argument(1).read());
    // Whole words only: registers and memory of this core.
    let words = length / 4;
    match request {
        command::VERSION => {
            let place = vcpu.field(Field::Version).read();
            let addresses = Register::at(buffer + message::ADDRESSES).read() & 0xFFFF;
            argument(0).write(addresses << 16 | vcpu.physical_core << 8 | vcpu.virtual_core);
            argument(1).write(0xFFFF_0000 | DATA_BYTES_MAX);
            argument(2).write(place);
            for (word, text) in [*b"SpiD", *b"NN/S", *b"piNN", *b"aker", *b"\0\0\0\0"].into_iter().enumerate() {
                argument(3 + word as u32).write(u32::from_le_bytes(text));
            }
            (RETURN_OK, ARGUMENT_BYTES + 20)
        }
        command::READ | command::WRITE if length > DATA_BYTES_MAX || (address | length) & 3 != 0 => (RETURN_LENGTH, 0),
        command::READ => {
            for n in 0..words {
                argument(n).write(Register::at(address + 4 * n).read());
            }
            (RETURN_OK, length)
        }
        command::WRITE => {
            for n in 0..words {
                Register::at(address + 4 * n).write(argument(3 + n).read());
            }
            (RETURN_OK, 0)
        }
        _ => (RETURN_COMMAND, 0),
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
