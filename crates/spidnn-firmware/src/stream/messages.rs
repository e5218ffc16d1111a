//! SDP messages from the monitor, in the buffers that it shares with its cores (SpiNNaker tools, `sark_base.c` and `scamp`).

use crate::device::Register;
use crate::device::system::{self, Lock};
use crate::global::Global;
use crate::monitor::{self, ByteField, Field, Vcpu};

/// Commands in a mailbox.
const IDLE: u8 = 0;
const MESSAGE: u8 = 1;
/// Messages that wait at most; the monitor has seven buffers.
const WAITING: usize = 8;
/// Offsets in a buffer: next buffer, length, SDP header, body.
const NEXT: u32 = 0;
const LENGTH: u32 = 4;
const HEADER: u32 = 8;
const BODY: u32 = 16;
/// Of the SDP header.
const HEADER_BYTES: u32 = 8;
/// The longest message.
const LENGTH_MAX: u32 = 280;
/// SDP port of the gate.
const PORT: u32 = 1;

static BUFFERS: Global<[u32; WAITING]> = Global::new([0; WAITING]);
/// Messages that came, and that were taken, modulo 2^32.
static CAME: Global<u32> = Global::new(0);
static TAKEN: Global<u32> = Global::new(0);

/// A message in its buffer.
pub struct Message(u32);

/// Takes what the monitor has in this core's mailbox; called with interrupts masked.
pub fn serve(vcpu: Vcpu) {
    system::clear_interrupt(vcpu.physical_core);
    if vcpu.byte(ByteField::FromMonitor).read() == IDLE {
        return;
    }
    let (command, data) = (vcpu.byte(ByteField::FromMonitor).read(), vcpu.field(Field::FromMonitor).read());
    let came = CAME.get();
    if command == MESSAGE && came.wrapping_sub(TAKEN.get()) < WAITING as u32 {
        // SAFETY: interrupts are masked; the main loop reads places that are full only.
        unsafe { BUFFERS.with(|buffers| (&raw mut buffers[came as usize % WAITING]).write_volatile(data)) };
        CAME.set(came.wrapping_add(1));
    } else if command == MESSAGE {
        Message(data).free();
    }
    vcpu.byte(ByteField::FromMonitor).write(IDLE);
}

/// Whether no message waits.
pub fn is_empty() -> bool {
    CAME.get() == TAKEN.get()
}

/// The oldest message.
pub fn take() -> Option<Message> {
    let taken = TAKEN.get();
    if CAME.get() == taken {
        return None;
    }
    // SAFETY: the handler writes to places that are free only.
    let buffer = unsafe { BUFFERS.with(|buffers| (&raw const buffers[taken as usize % WAITING]).read_volatile()) };
    TAKEN.set(taken.wrapping_add(1));
    Some(Message(buffer))
}

impl Message {
    /// Bytes of its body, if it is for the gate's port.
    pub fn body_bytes(&self) -> Option<u32> {
        let length = Register::at(self.0 + LENGTH).read() & 0xFFFF;
        let port = Register::at(self.0 + HEADER).read() >> 21 & 7;
        (port == PORT && (HEADER_BYTES..=LENGTH_MAX).contains(&length)).then(|| length - HEADER_BYTES)
    }

    /// A word of its body.
    pub fn word(&self, number: u32) -> u32 {
        Register::at(self.0 + BODY + 4 * number).read()
    }

    /// Where its body is.
    pub fn body(&self) -> u32 {
        self.0 + BODY
    }

    /// Gives the buffer back.
    pub fn free(self) {
        let buffer = self.0;
        system::locked(Lock::Messages, || {
            Register::at(buffer + NEXT).write(monitor::FREE_MESSAGE.read());
            monitor::FREE_MESSAGE.write(buffer);
            let counts = monitor::MESSAGES_IN_USE.read();
            monitor::MESSAGES_IN_USE.write(counts & 0xFFFF_0000 | (counts & 0xFFFF).saturating_sub(1));
        });
    }
}
