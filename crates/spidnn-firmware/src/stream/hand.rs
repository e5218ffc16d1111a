//! The hand: words from the gate go to its chip's SDRAM, words of SDRAM to the gate.

use crate::control;
use crate::device::{Register, comms, dma};
use crate::memory::{self, BLOCK_BYTES, BLOCK_WORDS, RING, RING_BLOCKS};
use crate::window::{DONE_WORDS, Window};
use crate::{mask, unmask};

/// DMA control: clear what is done; status: a transfer has been done.
const DMA_CONTROL: Register = Register::at(0x3000_0010);
const DMA_CLEAR_DONE: u32 = 8;
const DMA_DONE: u32 = 1 << 10;

/// See the module. The gate has one for its own chip.
pub struct Hand {
    /// What is being written.
    pub window: Window,
}

/// Moves words between data memory and the system, and waits for the end.
pub fn transfer(out: bool, system: u32, tcm: u32, words: u32) {
    submit(out, system, tcm, words);
    wait();
}

/// Begins to move words.
fn submit(out: bool, system: u32, tcm: u32, words: u32) {
    dma::submit(system, tcm, dma::description(out, 4 * words));
}

/// Waits for the end of what was begun.
fn wait() {
    while dma::status() & DMA_DONE == 0 {}
    DMA_CONTROL.write(DMA_CLEAR_DONE);
}

impl Hand {
    /// Nothing is being written.
    pub fn new() -> Hand {
        Hand { window: Window::EMPTY }
    }

    /// Does what the gate asks; whether there was something.
    pub fn serve(&mut self) -> bool {
        if !control::is_pending() {
            return false;
        }
        if let Some((what, question, [address, words, block, last])) = control::take() {
            match what {
                control::ASK => self.report(question, [address, words, block, last]),
                control::FETCH => send_blocks(address, words, block, last),
                control::PING => control::answer(control::PONG, question, &[0; DONE_WORDS + 2]),
                _ => {}
            }
        }
        true
    }

    /// Begins with another piece of memory if it is another transfer, moves on, and tells what is there.
    fn report(&mut self, question: u32, [address, words, first, transfer]: [u32; 4]) {
        if !memory::is_sdram(address, words) {
            return;
        }
        let old = self.window;
        self.look_at(transfer, address, words, first);
        if self.window != old {
            let (base, first) = self.window.place();
            mask();
            control::direct(base, first);
            unmask();
        }
        let mut report = [0; DONE_WORDS + 2];
        report[..DONE_WORDS].copy_from_slice(&self.window.done());
        report[DONE_WORDS] = self.window.first;
        report[DONE_WORDS + 1] = transfer;
        control::answer(control::REPORT, question, &report);
    }

    /// Takes up a transfer, or goes on with it.
    pub fn look_at(&mut self, transfer: u32, address: u32, words: u32, first: u32) {
        let now = (self.window.transfer, self.window.address, self.window.words);
        if now != (transfer, address, words) || words == 0 {
            self.window = Window::new(transfer, address, words);
        }
        self.window.advance(first);
    }
}

/// Sends blocks to the gate: those of the sixteen from `base` on that are wanted, one behind the other from a place in its ring on. The next
/// comes to data memory while one is sent.
fn send_blocks(address: u32, words: u32, base: u32, wanted_and_place: u32) {
    if !memory::is_sdram(address, words) {
        return;
    }
    let blocks = words.div_ceil(BLOCK_WORDS);
    let (wanted, mut place) = (wanted_and_place & 0xFFFF, wanted_and_place >> 16);
    let count_of = |block: u32| (words - BLOCK_WORDS * block).min(BLOCK_WORDS);
    let buffer_of = |place: u32| RING + BLOCK_BYTES * (place & 1);
    // The block that comes, and its place in the gate's ring.
    let mut coming = None;
    for number in 0..=16 {
        let block = base.wrapping_add(number);
        let is_wanted = number < 16 && wanted >> number & 1 != 0 && block < blocks;
        if !is_wanted && number < 16 {
            continue;
        }
        if coming.is_some() {
            wait();
        }
        let next = is_wanted.then_some((block, place));
        if is_wanted {
            submit(false, address + BLOCK_BYTES * block, buffer_of(place), count_of(block));
            place += 1;
        }
        if let Some((block, place)) = coming {
            send_block(buffer_of(place), count_of(block), place);
        }
        coming = next;
    }
}

/// Sends a block to a place in the gate's ring. A short one is filled up, since the gate counts whole ones.
fn send_block(from: u32, count: u32, place: u32) {
    let key = control::key(0) | place % RING_BLOCKS * BLOCK_WORDS;
    for word in 0..count {
        comms::send(key | word, Some(Register::at(from + 4 * word).read()));
    }
    for word in count..BLOCK_WORDS {
        comms::send(key | word, Some(0));
    }
}
