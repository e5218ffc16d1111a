//! Control packets between the gate and a hand: each sets one of the receiver's control words. The word [`COMMAND`] comes last; what
//! was lost on the way, or belongs to another command, does not fit its check and is forgotten. The gate asks again.

use crate::device::{Register, comms};
use crate::global::Global;
use crate::memory;
use crate::start;

/// The control word that comes last: check in bits 31:16, number of the question in 15:8, what it is in 7:0.
pub const COMMAND: u32 = 32;

/// To a hand: which piece of memory is written (address, words), blocks before which all is there, transfer. It reports.
pub const ASK: u32 = 1;
/// To a hand: send blocks: address, words, first block, bits of the sixteen from it that are wanted; and above them the place in the ring
/// of the first that is sent.
pub const FETCH: u32 = 2;
/// To a hand: answer, when everything before has been sent.
pub const PING: u32 = 3;
/// To the gate: bitmap of what is there (sixteen words), first block, transfer.
pub const REPORT: u32 = 4;
/// To the gate: the answer to [`PING`].
pub const PONG: u32 = 5;

/// Bit of a key.
const CONTROL_BIT: u32 = 1 << 15;
/// Number of the gate, and a hand's place, in a key.
const GATE: u16 = 0;

/// What the handler of a hand knows: base of the ring, first address expected, bitmap.
#[derive(Clone, Copy)]
#[repr(C)]
struct Variables {
    base: u32,
    first: u32,
    bitmap: u32,
}

/// Until the first transfer, words go where they do no harm.
static VARIABLES: Global<Variables> =
    Global::new(Variables { base: memory::RING, first: memory::RING, bitmap: memory::WINDOW_BITS });

/// The multicast key to a hand, or with number 0 to the gate.
pub const fn key(hand: u16) -> u32 {
    (hand as u32) << 20 | 0x000F_0000
}

/// Lets packets come as a hand wants them. Interrupts must be masked.
pub fn prepare() {
    Register::at(memory::CONTROL + 4 * COMMAND).write(0);
    start::prepare_fiq((&raw const VARIABLES) as u32, 0);
}

/// Tells a hand's handler where words go that come: base of the ring, first address. It must not run.
pub fn direct(base: u32, first: u32) {
    VARIABLES.set(Variables { base, first, bitmap: memory::WINDOW_BITS });
}

/// What the handler of a gate tells: the next key, and one that was not the next.
const NEXT_KEY: Register = Register::at(memory::RING - 4);
const WRONG_KEY: Register = Register::at(memory::RING - 8);

/// Lets packets come as a gate wants them: into the ring, in order, from its beginning. Nothing must be on its way.
pub fn prepare_gate() {
    crate::mask();
    NEXT_KEY.write(key(GATE));
    WRONG_KEY.write(0);
    start::use_gate_handler();
    start::prepare_fiq(memory::RING, key(GATE));
    crate::unmask();
}

/// Place in the ring of the next word to come.
pub fn ring_head() -> u32 {
    NEXT_KEY.read() & 0xFFF
}

/// Whether a word came that was not the next.
pub fn has_gap() -> bool {
    WRONG_KEY.read() != 0
}

/// Whether there is a command.
pub fn is_pending() -> bool {
    Register::at(memory::CONTROL + 4 * COMMAND).read() != 0
}

/// Takes the command: what it is, number of the question, and its `N` words.
pub fn take<const N: usize>() -> Option<(u32, u32, [u32; N])> {
    let place = Register::at(memory::CONTROL + 4 * COMMAND);
    let command = place.read();
    if command == 0 {
        return None;
    }
    place.write(0);
    let words = core::array::from_fn(|n| Register::at(memory::CONTROL + 4 * n as u32).read());
    (command >> 16 == check(command & 0xFFFF, &words)).then_some((command & 0xFF, command >> 8 & 0xFF, words))
}

/// Sends a command.
pub fn send(hand: u16, what: u32, question: u32, words: &[u32]) {
    let key = key(hand) | CONTROL_BIT;
    for (number, word) in words.iter().enumerate() {
        comms::send(key | number as u32, Some(*word));
    }
    let low = question << 8 & 0xFF00 | what;
    comms::send(key | COMMAND, Some(check(low, words) << 16 | low));
}

/// The same to the gate.
pub fn answer(what: u32, question: u32, words: &[u32]) {
    send(GATE, what, question, words);
}

fn check(command: u32, words: &[u32]) -> u32 {
    let sum = words.iter().fold(command ^ 0x5350, |sum, word| sum.rotate_left(5).wrapping_add(*word));
    (sum ^ sum >> 16) & 0xFFFF
}
