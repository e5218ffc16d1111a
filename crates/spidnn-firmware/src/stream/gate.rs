//! The gate: between the host and the memories of its own chip and of the hands.

use crate::control;
use crate::device::comms;
use crate::ethernet::{Content, Host};
use crate::hand::Hand;
use crate::memory::{self, BLOCK_BYTES, BLOCK_WORDS};
use crate::messages::Message;
use crate::monitor::Vcpu;
use crate::reading::{Reading, Request};
use crate::window::DONE_WORDS;

/// Messages (`spinnaker-wire`, module `stream`).
const HELLO: u32 = 0x5301;
const GREETING: u32 = 0x5302;
const DATA: u32 = 0x5303;
const ASK: u32 = 0x5304;
const STATUS: u32 = 0x5305;
const FETCH: u32 = 0x5306;
/// Version of the messages.
const VERSION: u32 = 1;
/// SDP port, in the upper bits of a byte of the header.
const SOURCE_PORT: u8 = 1 << 5;
const HANDS_MAX: u32 = 0xFFE;

/// An answer that waits for the transmitter: two words of head, then the rest.
struct Answer {
    head: [u32; 2],
    words: [u32; DONE_WORDS + 1],
    count: usize,
}

/// See the module.
pub struct Gate {
    host: Host,
    nonce: u32,
    /// The transfer that is worked on; older ones are ignored.
    transfer: Option<u16>,
    /// The hand that is written to.
    hand: u16,
    /// What the host has asked the hand: the question's number.
    asked: Option<u32>,
    answer: Option<Answer>,
    reading: Reading,
}

/// The piece of memory that a message is about.
struct Extent {
    hand: u16,
    address: u32,
    words: u32,
}

impl Gate {
    /// Takes a message from the monitor. The first greeting makes this core a gate.
    pub fn receive(gate: &mut Option<Gate>, vcpu: Vcpu, hand: &mut Hand, message: &Message) {
        let Some(bytes) = message.body_bytes() else { return };
        if bytes < 12 {
            return;
        }
        let (code, transfer) = (message.word(0) & 0xFFFF, (message.word(0) >> 16) as u16);
        match (code, gate) {
            (HELLO, gate) if bytes >= 20 => {
                let nonce = message.word(1);
                // A greeting that comes again changes nothing.
                if gate.as_ref().is_none_or(|gate| gate.nonce != nonce) {
                    let source = SOURCE_PORT | vcpu.virtual_core as u8;
                    let host = Host::new(message.word(2), message.word(3), message.word(4), source);
                    *gate = Some(Gate::new(host, nonce));
                }
                if let Some(gate) = gate {
                    gate.say([GREETING, nonce], &[VERSION]);
                }
            }
            (DATA, Some(gate)) if gate.transfer == Some(transfer) => gate.data(hand, message, bytes),
            (ASK, Some(gate)) if bytes >= 20 => gate.ask(hand, message, transfer),
            (FETCH, Some(gate)) if bytes >= 28 => gate.fetch(message, transfer),
            _ => {}
        }
    }

    fn new(host: Host, nonce: u32) -> Gate {
        control::prepare_gate();
        Gate { host, nonce, transfer: None, hand: 0, asked: None, answer: None, reading: Reading::new() }
    }

    fn say(&mut self, head: [u32; 2], words: &[u32]) {
        let mut answer = Answer { head, words: [0; DONE_WORDS + 1], count: words.len() };
        if let Some(place) = answer.words.get_mut(..words.len()) {
            place.copy_from_slice(words);
            self.answer = Some(answer);
        }
    }

    /// What the message is about, if its transfer is the newest or a newer one.
    fn extent(&mut self, message: &Message, transfer: u16) -> Option<Extent> {
        let (hand, address, words) = (message.word(1) & 0xFFFF, message.word(2), message.word(3));
        if hand > HANDS_MAX || words == 0 || !memory::is_sdram(address, words) {
            return None;
        }
        if let Some(newest) = self.transfer
            && (transfer.wrapping_sub(newest) as i16) < 0
        {
            return None;
        }
        if self.transfer.replace(transfer) != Some(transfer) {
            self.reading.forget();
            self.asked = None;
        }
        Some(Extent { hand: hand as u16, address, words })
    }

    /// A block to be written.
    fn data(&mut self, hand: &mut Hand, message: &Message, bytes: u32) {
        let block = message.word(1);
        let window = &hand.window;
        if self.transfer.map(u32::from) != Some(window.transfer) || !window.takes(block) {
            return;
        }
        let words = window.words_of(block);
        if bytes != 8 + 4 * words {
            return;
        }
        let from = message.body() + 8;
        if self.hand == 0 {
            memory::copy(from, window.address_of(block), words);
            window.set_done(block);
            return;
        }
        let key = control::key(self.hand) | block * BLOCK_WORDS & 0x7FFF;
        for word in 0..words {
            comms::send(key | word, Some(message.word(2 + word)));
        }
    }

    /// The host wants to know what has come.
    fn ask(&mut self, hand: &mut Hand, message: &Message, transfer: u16) {
        let Some(extent) = self.extent(message, transfer) else { return };
        let (question, first) = (message.word(1) >> 16, message.word(4));
        // Also for another chip's memory the window says which blocks may go there.
        hand.look_at(transfer.into(), extent.address, extent.words, first);
        self.hand = extent.hand;
        if extent.hand == 0 {
            let mut words = [0; DONE_WORDS + 1];
            words[0] = hand.window.first;
            words[1..].copy_from_slice(&hand.window.done());
            hand.window.close_if_done(words[0], &words[1..]);
            self.say([STATUS | u32::from(transfer) << 16, question << 16], &words);
        } else {
            self.asked = Some(question);
            control::send(extent.hand, control::ASK, question, &[extent.address, extent.words, first, transfer.into()]);
        }
    }

    /// The host wants blocks.
    fn fetch(&mut self, message: &Message, transfer: u16) {
        let Some(extent) = self.extent(message, transfer) else { return };
        self.reading.request(Request {
            transfer,
            hand: extent.hand,
            address: extent.address,
            words: extent.words,
            base: message.word(4),
            wanted: [message.word(5), message.word(6)],
        });
    }

    /// Goes on with what is under way; whether it has to be called again at once.
    pub fn work(&mut self, hand: &mut Hand) -> bool {
        if let Some((what, question, report)) = control::take::<{ DONE_WORDS + 2 }>() {
            match what {
                control::REPORT => self.report(hand, question, &report),
                control::PONG => self.reading.pong(question),
                _ => {}
            }
        }
        if let Some(answer) = &self.answer {
            let words = answer.words.get(..answer.count).unwrap_or_default();
            if self.host.send(answer.head[0], answer.head[1], &Content::Words(words)) {
                self.answer = None;
            }
            return true;
        }
        self.reading.go_on(&mut self.host)
    }

    /// A hand tells what has come.
    fn report(&mut self, hand: &mut Hand, question: u32, report: &[u32; DONE_WORDS + 2]) {
        let transfer = report[DONE_WORDS + 1];
        let Some(asked) = self.asked else { return };
        if asked & 0xFF != question || self.transfer.map(u32::from) != Some(transfer) {
            return;
        }
        let mut words = [0; DONE_WORDS + 1];
        words[0] = report[DONE_WORDS];
        words[1..].copy_from_slice(&report[..DONE_WORDS]);
        hand.window.close_if_done(words[0], &words[1..]);
        self.say([STATUS | transfer << 16, asked << 16 | u32::from(self.hand)], &words);
    }
}

const _: () = assert!(BLOCK_BYTES == 4 * BLOCK_WORDS);
