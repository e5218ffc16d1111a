//! Blocks on their way to the host: from the gate's own chip by DMA, from others as packets, into a ring of four quarters of sixteen
//! blocks; and from there in frames of up to four.

use crate::control;
use crate::device::{Register, timer};
use crate::ethernet::{Content, Host};
use crate::hand;
use crate::memory::{BLOCK_BYTES, BLOCK_WORDS, RING, RING_BITS, RING_BLOCKS};
use crate::window;

/// Message to the host (`spinnaker-wire`, module `stream`).
const BLOCKS: u32 = 0x5307;
/// Requests that wait at most.
const REQUESTS: usize = 16;
/// Quarters of the ring that are under way.
const PARTS: usize = 2;
const PART_BLOCKS: u32 = 16;
const QUARTERS: u32 = RING_BLOCKS / PART_BLOCKS;
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

/// Sixteen blocks on their way.
#[derive(Clone, Copy)]
struct Part {
    request: Request,
    base: u32,
    wanted: u32,
    quarter: u32,
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
    /// The quarter that comes next.
    quarter: u32,
    /// When something came or went last.
    since: u32,
    /// Words may still be on their way into the ring: nothing goes on until this question to the hand has been answered.
    doubt: Option<u16>,
    pings: u32,
}

fn bits(slot: u32, half: u32) -> Register {
    Register::at(RING_BITS + 8 * slot + 4 * half)
}

impl Part {
    fn words_of(&self, block: u32) -> u32 {
        (self.request.words - (BLOCK_WORDS * block).min(self.request.words)).min(BLOCK_WORDS)
    }

    fn slot(&self, number: u32) -> u32 {
        PART_BLOCKS * self.quarter + number
    }

    fn is_there(&self, number: u32) -> bool {
        let slot = self.slot(number);
        window::is_full([bits(slot, 0).read(), bits(slot, 1).read()], self.words_of(self.base + number))
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
            quarter: 0,
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
        if self.pings & 0xFF == question {
            self.doubt = None;
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
        } else if part.request.hand != 0 && timer::now().wrapping_sub(self.since) > PATIENCE_CYCLES {
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
                    self.quarter = (self.quarter + 1) % QUARTERS;
                    return Some(Part { request, base, wanted, quarter: self.quarter });
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
            for number in 0..PART_BLOCKS {
                bits(part.slot(number), 0).write(0);
                bits(part.slot(number), 1).write(0);
            }
            let place = part.wanted | part.quarter << 16;
            control::send(request.hand, control::FETCH, 0, &[request.address, request.words, part.base, place]);
            return;
        }
        let words = (request.words - BLOCK_WORDS * part.base).min(PART_BLOCKS * BLOCK_WORDS);
        hand::transfer(false, request.address + BLOCK_BYTES * part.base, RING + BLOCK_BYTES * part.slot(0), words);
        for number in 0..PART_BLOCKS {
            bits(part.slot(number), 0).write(u32::MAX);
            bits(part.slot(number), 1).write(u32::MAX);
        }
    }

    /// Sends a frame of the blocks that are wanted next, if they are all there.
    fn send(&mut self, part: &mut Part, host: &mut Host) {
        let first = part.wanted.trailing_zeros();
        let end = (first / FRAME_BLOCKS + 1) * FRAME_BLOCKS;
        let mut words = 0;
        let mut sent = 0;
        for number in (first..end).take_while(|number| part.wanted >> number & 1 != 0) {
            if !part.is_there(number) {
                return;
            }
            words += part.words_of(part.base + number);
            sent |= 1 << number;
        }
        let head = BLOCKS | u32::from(part.request.transfer) << 16;
        let place = RING + BLOCK_BYTES * part.slot(first);
        if words > 0 && host.send(head, part.base + first, &Content::Memory(place, words)) {
            part.wanted &= !sent;
        }
    }
}
