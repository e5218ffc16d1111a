//! Text for the host: one block in SDRAM, of the form that the official tools read (`iobuf`), in the chip's directory.

use spidnn_core::program::directory;

use crate::device::{ByteCell, Register};
use crate::global::Global;
use crate::monitor::{Field, Vcpu};

/// Header of a block: next block, time in seconds, milliseconds, bytes that are valid.
const HEADER_BYTES: u32 = 16;
const ROOM_BYTES: u32 = directory::TEXT_BYTES - HEADER_BYTES;

/// Address of this core's block; 0 for none.
static BLOCK: Global<u32> = Global::new(0);

/// Empties the block, which lies in the directory of the chip, and tells the host where it is.
pub fn prepare(vcpu: Vcpu, directory: u32) {
    let block = directory + directory::TEXT + directory::TEXT_BYTES * vcpu.virtual_core;
    for word in 0..HEADER_BYTES / 4 {
        Register::at(block + 4 * word).write(0);
    }
    BLOCK.set(block);
    vcpu.field(Field::Text).write(block);
}

/// Adds text; what finds no room is lost.
pub fn write(text: &str) {
    let block = BLOCK.get();
    if block == 0 {
        return;
    }
    let count = Register::at(block + 12);
    for &byte in text.as_bytes() {
        let at = count.read();
        if at < ROOM_BYTES {
            ByteCell::at(block + HEADER_BYTES + at).write(byte);
            count.write(at + 1);
        }
    }
}
