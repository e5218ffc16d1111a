//! Multicast packets that came, between the FIQ handler (`fiq.s`), which puts them into two rings, and the runtime.
//!
//! Words of the blocks that an exchange is waiting for go to their places in data memory at once, and packets of a barrier are counted:
//! neither comes into a ring. When a ring is nearly full the handler stops listening: packets then wait in the network, which drops them when it takes too
//! long; the runtime's protocols live with that.

use core::arch::asm;
use core::cell::UnsafeCell;

use spidnn_core::Meeting;
use spidnn_core::program::barrier;

use crate::device::{comms, vic};
use crate::interrupt;

/// Packets with payload that the ring holds (one place stays empty).
const LONG: usize = 64;
/// Blocks that the handler may put away by itself.
const BLOCKS: usize = if cfg!(feature = "exchanges") { 12 } else { 0 };
/// A block that is none: no key gives it, and the search goes on behind it.
const CLOSED: u32 = u32::MAX;
/// A number that never comes: nothing is to be sent.
const SENT: u32 = 1 << 30;
/// An epoch that none is, so that nothing is counted: a kind that no packet has.
const NO_EPOCH: u32 = 0x6000;
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
    /// Packets without payload that are counted: epoch of the barrier, as it is in their keys.
    epoch: u32,
    /// Numbers that have to come at every barrier.
    gathered: u32,
    /// Not zero: a barrier is over.
    over: u32,
    /// Not zero: something has happened that the runtime may wait for.
    news: u32,
    /// Numbers that have to come before a packet is sent, or [`SENT`]; its key.
    missing: u32,
    then: u32,
    /// Not zero: there may be something in the rings.
    waiting: u32,
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
    epoch: NO_EPOCH,
    gathered: SENT,
    over: 0,
    news: 0,
    missing: SENT,
    then: 0,
    waiting: 0,
    blocks: [const { Block { key: END, address: 0, bitmap: [0; 4] } }; BLOCKS + 1],
}));

const _: () = {
    assert!(core::mem::offset_of!(Rings, long_words) == 256);
    assert!(core::mem::offset_of!(Rings, short_keys) == 512);
    assert!(core::mem::offset_of!(Rings, long_head) == 640);
    assert!(
        core::mem::offset_of!(Rings, epoch) == 640 + 20
            && core::mem::offset_of!(Rings, news) == 672
            && core::mem::offset_of!(Rings, waiting) == 640 + 44
            && core::mem::offset_of!(Rings, blocks) == 640 + 48
            && size_of::<Block>() == 24
    );
    assert!(barrier::KEY_MASK == 0x6F00 && barrier::EPOCH_SHIFT == 8 && barrier::RELEASE == 31);
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
        (word!(epoch), NO_EPOCH),
        (word!(gathered), SENT),
        (word!(over), 0),
        (word!(missing), SENT),
        (word!(waiting), 0),
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
        write(word!(epoch), meeting.epoch);
        write(word!(gathered), meeting.gathered);
        write(word!(over), 0);
        write(word!(missing), meeting.gathered);
        write(word!(then), meeting.then);
    });
}

unsafe extern "C" {
    /// `sleep.s`
    fn spidnn_meet(numbers: u32) -> u32;
}

/// As [`join`]; then sleeps until there are news: whether a barrier is over.
pub fn meet(numbers: u32) -> bool {
    // SAFETY: it changes nothing but words of `RINGS`.
    unsafe { spidnn_meet(numbers) != 0 }
}

/// The runtime knows that the barrier is over.
pub fn part() {
    write(word!(over), 0);
}

/// Adds numbers to those that came; sends the packet of the meeting if these were the last. (Else the handler does, later.)
pub fn join(numbers: u32) {
    interrupt::masked(|| {
        let missing = read(word!(missing)) & !numbers;
        write(word!(missing), if missing == 0 { SENT } else { missing });
        if missing == 0 {
            comms::send(read(word!(then)), None);
        }
    });
}

/// Numbers that were counted, and whether the barrier is over.
pub fn met() -> u32 {
    let over = if read(word!(over)) != 0 { 1 << barrier::RELEASE } else { 0 };
    !read(word!(missing)) & !(1 << barrier::RELEASE) | over
}

/// Whether no packet waits.
#[inline(always)]
pub fn is_empty() -> bool {
    read(word!(waiting)) == 0
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
    // Before the look: what comes after it is noted again.
    write(word!(waiting), 0);
    let taken = take_one();
    if taken.is_some() {
        write(word!(waiting), 1);
    }
    taken
}

fn take_one() -> Option<(u32, Payloads)> {
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
