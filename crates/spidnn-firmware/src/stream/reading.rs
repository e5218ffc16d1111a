//! Blocks on their way to the host: from the gate's own chip by DMA, from others as packets into a ring, in the order in which they were
//! asked for; and from there in frames of up to four.

use crate::control;
use crate::device::timer;
use crate::ethernet::{Content, Host};
use crate::hand;
use crate::memory::{BLOCK_BYTES, BLOCK_WORDS, OWN, RING, RING_BLOCKS};

/// Message to the host (`spinnaker-wire`, module `stream`).
const BLOCKS: u32 = 0x5307;
/// Requests that wait at most.
const REQUESTS: usize = 16;
/// Parts of requests that are under way, and their blocks.
const PARTS: usize = 2;
const PART_BLOCKS: u32 = 16;
const FRAME_BLOCKS: u32 = 4;
/// A hand that has sent nothing for so long has lost something: 1 ms of 200 MHz.
const PATIENCE_CYCLES: u32 = 200_000;

/// Blocks that the host wants.
#[derive(Clone, Copy)]
pub struct Request {
    /// Number of the transfer.
    pub transfer: u16,
    /// Whose memory; 0 is the gate's chip.
    pub hand: u16,
    /// What is read.
    pub address: u32,
    /// See `address`.
    pub words: u32,
    /// First of 64 blocks.
    pub base: u32,
    /// Which of them.
    pub wanted: [u32; 2],
}

/// Up to sixteen blocks on their way.
#[derive(Clone, Copy)]
struct Part {
    request: Request,
    base: u32,
    /// Those that were not sent to the host.
    wanted: u32,
    /// Of the gate's own chip: which half of its place.
    half: u32,
}

/// See the module.
pub struct Reading {
    requests: [Option<Request>; REQUESTS],
    /// The oldest request, and how many there are.
    oldest: usize,
    count: usize,
    /// The next sixteenth of the oldest request.
    next: u32,
    parts: [Option<Part>; PARTS],
    /// Blocks of the ring that were asked for, and that went to the host, modulo 2^32.
    asked: u32,
    taken: u32,
    half: u32,
    /// When something came or went last.
    since: u32,
    /// Words may still be on their way into the ring: nothing goes on until this question to the hand has been answered.
    doubt: Option<u16>,
    pings: u32,
}

impl Part {
    fn words_of(&self, block: u32) -> u32 {
        (self.request.words - (BLOCK_WORDS * block).min(self.request.words)).min(BLOCK_WORDS)
    }

    /// Where a block of the gate's own chip is.
    fn own_place(&self, number: u32) -> u32 {
        OWN + BLOCK_BYTES * (PART_BLOCKS * self.half + number)
    }
}

impl Reading {
    /// Nothing is read.
    pub fn new() -> Reading {
        Reading {
            requests: [None; REQUESTS],
            oldest: 0,
            count: 0,
            next: 0,
            parts: [None; PARTS],
            asked: 0,
            taken: 0,
            half: 0,
            since: 0,
            doubt: None,
            pings: 0,
        }
    }

    /// Adds a request; without room it is lost, and the host will ask again.
    pub fn request(&mut self, request: Request) {
        if let Some(hand) = self.doubt {
            self.ping(hand);
        }
        if self.count < REQUESTS {
            self.requests[(self.oldest + self.count) % REQUESTS] = Some(request);
            self.count += 1;
        }
    }

    /// Drops the requests; what is under way comes to its end.
    pub fn forget(&mut self) {
        self.count = 0;
        self.next = 0;
    }

    fn ping(&mut self, hand: u16) {
        self.pings += 1;
        control::send(hand, control::PING, self.pings & 0xFF, &[0; 4]);
    }

    /// The hand has answered: nothing is on its way any more.
    pub fn pong(&mut self, question: u32) {
        if self.doubt.is_some() && self.pings & 0xFF == question {
            self.doubt = None;
            control::prepare_gate();
            (self.asked, self.taken) = (0, 0);
        }
    }

    /// Goes on; whether it has to be called again at once.
    pub fn go_on(&mut self, host: &mut Host) -> bool {
        if self.doubt.is_some() {
            return false;
        }
        while self.parts[PARTS - 1].is_none() {
            let Some(part) = self.next_part() else { break };
            self.begin(&part);
            let free = self.parts.iter().position(Option::is_none).unwrap_or(0);
            if free == 0 {
                self.since = timer::now();
            }
            self.parts[free] = Some(part);
        }
        let Some(mut part) = self.parts[0] else { return false };
        let before = part.wanted;
        self.send(&mut part, host);
        if part.wanted != before {
            self.since = timer::now();
        }
        self.parts[0] = Some(part);
        if part.wanted == 0 {
            self.parts.copy_within(1.., 0);
            self.parts[PARTS - 1] = None;
        } else if part.request.hand != 0
            && (control::has_gap() || timer::now().wrapping_sub(self.since) > PATIENCE_CYCLES)
        {
            self.parts = [None; PARTS];
            self.forget();
            self.doubt = Some(part.request.hand);
            self.ping(part.request.hand);
        }
        true
    }

    /// The next sixteen blocks of which some are wanted.
    fn next_part(&mut self) -> Option<Part> {
        while self.count > 0 {
            if let Some(request) = self.requests[self.oldest]
                && self.next < 4
            {
                let number = self.next;
                self.next += 1;
                let base = request.base.wrapping_add(PART_BLOCKS * number);
                let there = request.words.div_ceil(BLOCK_WORDS).saturating_sub(base).min(PART_BLOCKS);
                let wanted = request.wanted[number as usize / 2] >> (16 * (number & 1)) & ((1 << there) - 1);
                if wanted != 0 {
                    self.half ^= 1;
                    return Some(Part { request, base, wanted, half: self.half });
                }
            } else {
                self.next = 0;
                self.oldest = (self.oldest + 1) % REQUESTS;
                self.count -= 1;
            }
        }
        None
    }

    fn begin(&mut self, part: &Part) {
        let request = &part.request;
        if request.hand != 0 {
            let place = part.wanted | self.asked % RING_BLOCKS << 16;
            self.asked = self.asked.wrapping_add(part.wanted.count_ones());
            control::send(request.hand, control::FETCH, 0, &[request.address, request.words, part.base, place]);
            return;
        }
        let words = (request.words - BLOCK_WORDS * part.base).min(PART_BLOCKS * BLOCK_WORDS);
        hand::transfer(false, request.address + BLOCK_BYTES * part.base, part.own_place(0), words);
    }

    /// Blocks in the ring that have come whole and were not sent.
    fn there(&self) -> u32 {
        (control::ring_head() / BLOCK_WORDS).wrapping_sub(self.taken) % RING_BLOCKS
    }

    /// Sends a frame of the blocks that are wanted next, if they are all there.
    fn send(&mut self, part: &mut Part, host: &mut Host) {
        let first = part.wanted.trailing_zeros();
        let is_remote = part.request.hand != 0;
        let mut end = first + 1;
        // To the end of a group of four, in a row, and not over the end of the ring.
        while end % FRAME_BLOCKS != 0
            && part.wanted >> end & 1 != 0
            && !(is_remote && (self.taken + end - first) % RING_BLOCKS == 0)
        {
            end += 1;
        }
        let count = end - first;
        if is_remote && self.there() < count {
            return;
        }
        let place = if is_remote { RING + BLOCK_BYTES * (self.taken % RING_BLOCKS) } else { part.own_place(first) };
        let words = BLOCK_WORDS * (count - 1) + part.words_of(part.base + end - 1);
        let head = BLOCKS | u32::from(part.request.transfer) << 16;
        if host.send(head, part.base + first, &Content::Memory(place, words)) {
            part.wanted &= !((1 << end) - (1 << first));
            if is_remote {
                self.taken = self.taken.wrapping_add(count);
            }
        }
    }
}
