//! Multicast packets that came, between the FIQ handler (`fiq.s`), which puts them into two rings, and the runtime.
//!
//! Words of the blocks that an exchange is waiting for go to their places in data memory at once, and packets of a barrier are counted:
//! neither comes into a ring. When a ring is nearly full the handler stops listening: packets then wait in the network, which drops them when it takes too
//! long; the runtime's protocols live with that.

use core::arch::asm;
use core::cell::UnsafeCell;

use spidnn_core::Meeting;

use crate::device::{comms, vic};
use crate::interrupt;

/// Packets with payload that the ring holds (one place stays empty).
const LONG: usize = 64;
/// Blocks that the handler may put away by itself.
const BLOCKS: usize = if cfg!(feature = "exchanges") { 12 } else { 0 };
/// A block that is none: no key gives it, and the search goes on behind it.
const CLOSED: u32 = u32::MAX;
/// No number that ever comes: nothing is to be sent.
const SENT: u32 = 1 << 30;
/// The end of the table of blocks, as `fiq.s` knows it.
const END: u32 = u32::MAX - 1;
/// Packets without.
const SHORT: usize = 32;

/// A block of a stream that is put away as it comes.
#[repr(C)]
struct Block {
    /// Its keys without the lowest 7 bits, or [`CLOSED`]; [`END`] ends the table.
    key: u32,
    /// Address of its words.
    address: u32,
    /// A bit for each word that has come.
    bitmap: [u32; 4],
}

/// The rings, as `fiq.s` knows them. Their section begins at a multiple of 512 (`link.x`): a place wraps by clearing one bit.
#[repr(C)]
struct Rings {
    long_keys: [u32; LONG],
    long_words: [u32; LONG],
    short_keys: [u32; SHORT],
    long_head: u32,
    long_tail: u32,
    short_head: u32,
    short_tail: u32,
    stopped: u32,
    /// Packets without payload that are counted: key, bits of it that count; numbers (bits 8:4) that came.
    counted_key: u32,
    counted_mask: u32,
    counted: u32,
    /// Not zero: something has happened that the runtime may wait for.
    news: u32,
    /// Numbers that have to come before a packet is sent, or [`SENT`]; its key.
    gathered: u32,
    then: u32,
    reserved: u32,
    blocks: [Block; BLOCKS + 1],
}

struct Shared(UnsafeCell<Rings>);
// SAFETY: one core; what the handler writes is read as volatile, and each word has one writer (but `stopped`, see `freed`).
unsafe impl Sync for Shared {}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".ring")]
static RINGS: Shared = Shared(UnsafeCell::new(Rings {
    long_keys: [0; LONG],
    long_words: [0; LONG],
    short_keys: [0; SHORT],
    long_head: 0,
    long_tail: 0,
    short_head: 0,
    short_tail: 0,
    stopped: 0,
    counted_key: 1,
    counted_mask: 0,
    counted: 0,
    news: 0,
    gathered: SENT,
    then: 0,
    reserved: 0,
    blocks: [const { Block { key: END, address: 0, bitmap: [0; 4] } }; BLOCKS + 1],
}));

const _: () = {
    assert!(core::mem::offset_of!(Rings, long_words) == 256);
    assert!(core::mem::offset_of!(Rings, short_keys) == 512);
    assert!(core::mem::offset_of!(Rings, long_head) == 640);
    assert!(
        core::mem::offset_of!(Rings, counted_key) == 640 + 20
            && core::mem::offset_of!(Rings, news) == 672
            && core::mem::offset_of!(Rings, blocks) == 640 + 48
            && size_of::<Block>() == 24
    );
};

macro_rules! word {
    ($field:ident) => {
        // SAFETY: a word of the static.
        unsafe { &raw mut (*RINGS.0.get()).$field }
    };
}

#[inline(always)]
fn read(word: *mut u32) -> u32 {
    // SAFETY: words of `RINGS`.
    unsafe { word.read_volatile() }
}

#[inline(always)]
fn write(word: *mut u32, value: u32) {
    // SAFETY: words of `RINGS`.
    unsafe { word.write_volatile(value) }
}

/// Empties the rings and sets the FIQ mode's registers. Interrupts must be masked; FIQ stays so.
#[instruction_set(arm::a32)]
pub fn prepare() {
    let (long, short) = (word!(long_keys) as u32, word!(short_keys) as u32);
    for (place, value) in [
        (word!(long_head), long),
        (word!(long_tail), long),
        (word!(short_head), short),
        (word!(short_tail), short),
        (word!(stopped), 0),
        (word!(news), 0),
        // No key has a bit outside of an empty mask: nothing is counted.
        (word!(counted_key), 1),
        (word!(counted_mask), u32::MAX),
        (word!(counted), 0),
        (word!(gathered), SENT),
    ] {
        write(place, value);
    }
    for place in 0..=BLOCKS {
        write(block_word(place, 0), END);
    }
    let variables = word!(long_head) as u32;
    // SAFETY: only registers of FIQ mode are changed, and the mode is restored.
    unsafe {
        asm!(
            "mrs r4, cpsr",
            "msr cpsr_c, #0xD1",
            "mov r8, r0",
            "mov r9, r1",
            "mov r10, r2",
            "msr cpsr_c, r4",
            out("r4") _,
            in("r0") comms::BASE,
            in("r1") block_word(0, 0),
            in("r2") variables,
        );
    }
}

/// A word of a block's entry: `place` is at most BLOCKS, `word` below 6.
fn block_word(place: usize, word: usize) -> *mut u32 {
    word!(blocks).cast::<u32>().wrapping_add(6 * place.min(BLOCKS) + word)
}

/// Lets the handler put away the packets with keys from `key` on, 128 of them, at an address.
pub fn open(place: usize, key: u32, address: u32) {
    if place >= BLOCKS {
        return;
    }
    // Last the key: from then on the handler uses the entry.
    write(block_word(place, 0), CLOSED);
    write(block_word(place, 1), address);
    for word in 2..6 {
        write(block_word(place, word), 0);
    }
    write(block_word(place, 0), key >> 7);
}

/// The words of a block that the handler has put away.
pub fn put_away(place: usize) -> [u32; 4] {
    core::array::from_fn(|word| if place < BLOCKS { read(block_word(place, 2 + word)) } else { 0 })
}

/// Notes that something has happened that the runtime may wait for (`sleep.s` looks for it).
pub fn set_news() {
    write(word!(news), 1);
}

/// Lets the handler put away nothing.
pub fn close() {
    for place in 0..BLOCKS {
        if read(block_word(place, 0)) != END {
            write(block_word(place, 0), CLOSED);
        }
    }
}

/// Counts packets from now on, instead of keeping them.
pub fn count(meeting: &Meeting) {
    // The handler must not see half of it. (Not nested: the runtime calls it.)
    interrupt::masked(|| {
        write(word!(counted_key), meeting.key);
        write(word!(counted_mask), meeting.mask);
        write(word!(counted), 0);
        write(word!(gathered), meeting.gathered);
        write(word!(then), meeting.then);
    });
}

/// Adds numbers to those that came; sends the packet of the meeting if these were the last. (Else the handler does, later.)
pub fn join(numbers: u32) {
    interrupt::masked(|| {
        let counted = counted() | numbers;
        write(word!(counted), counted);
        if read(word!(gathered)) & !counted == 0 {
            write(word!(gathered), SENT);
            comms::send(read(word!(then)), None);
        }
    });
}

/// Numbers that were counted.
pub fn counted() -> u32 {
    read(word!(counted))
}

/// Whether no packet waits.
pub fn is_empty() -> bool {
    (read(word!(long_head)), read(word!(short_head))) == (read(word!(long_tail)), read(word!(short_tail)))
}

/// Payloads that were taken out of the ring, still in their places there; dropping gives these back.
pub struct Payloads {
    first: *const u32,
    count: usize,
}

impl AsRef<[u32]> for Payloads {
    fn as_ref(&self) -> &[u32] {
        // SAFETY: the handler does not write to places before the tail has passed them.
        unsafe { core::slice::from_raw_parts(self.first, self.count) }
    }
}

impl Drop for Payloads {
    fn drop(&mut self) {
        if self.count > 0 {
            let base = word!(long_keys) as u32;
            let tail = read(word!(long_tail)) + 4 * self.count as u32;
            write(word!(long_tail), if tail == base + 4 * LONG as u32 { base } else { tail });
            freed();
        }
    }
}

/// There is room again: listen.
fn freed() {
    // The handler sets it only while the source is enabled, which it is not once it has.
    if read(word!(stopped)) != 0 {
        write(word!(stopped), 0);
        vic::enable(vic::source::MULTICAST);
    }
}

/// The oldest packet without payload, or a run of packets with payload and consecutive keys: key of the first, payloads.
pub fn take() -> Option<(u32, Payloads)> {
    let tail = read(word!(short_tail));
    if tail != read(word!(short_head)) {
        // SAFETY: the tail points into the ring.
        let key = unsafe { (tail as *const u32).read_volatile() };
        let base = word!(short_keys) as u32;
        write(word!(short_tail), if tail + 4 == base + 4 * SHORT as u32 { base } else { tail + 4 });
        freed();
        return Some((key, Payloads { first: core::ptr::NonNull::dangling().as_ptr(), count: 0 }));
    }
    let (tail, head) = (read(word!(long_tail)), read(word!(long_head)));
    if tail == head {
        return None;
    }
    let end = if head > tail { head } else { word!(long_keys) as u32 + 4 * LONG as u32 };
    let available = (end - tail) / 4;
    let keys = tail as *const u32;
    // SAFETY: places between tail and head, which the handler leaves alone.
    let key = |n: u32| unsafe { keys.add(n as usize).read_volatile() };
    let first = key(0);
    let mut count = 1;
    while count < available && key(count) == first + count {
        count += 1;
    }
    let first_word = (tail + 4 * LONG as u32) as *const u32;
    Some((first, Payloads { first: first_word, count: count as usize }))
}
