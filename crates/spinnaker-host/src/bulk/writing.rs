//! The host's side of a write, as a state machine without sockets or clock.

use std::collections::VecDeque;
use std::time::Duration;

use spinnaker_wire::bulk::{BLOCK_BYTES, Extent, Message, WINDOW_BLOCKS};

use super::patience::Patience;

/// Blocks on their way at most: 7 ms of the cable.
const UNDER_WAY_MAX: usize = 256;
/// Blocks between two questions.
const ASK_EVERY: u32 = 64;
/// Questions that are remembered.
const QUESTIONS_MAX: usize = 64;

/// What is known of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Unsent,
    /// With the number of its sending.
    Sent(u64),
    Lost,
    Done,
}

/// A question without an answer so far.
#[derive(Clone, Copy, Debug)]
struct Question {
    number: u16,
    /// What was sent before it.
    sent: u64,
    time: Duration,
}

/// See the module.
pub(super) struct Writing<'a> {
    transfer: u16,
    extent: Extent,
    data: &'a [u8],
    blocks: Vec<Block>,
    /// All blocks before this are done; of these the hand knows.
    first: usize,
    hand_first: u32,
    /// The first block that was never sent.
    next: usize,
    lost: VecDeque<usize>,
    under_way: usize,
    sent: u64,
    since_question: u32,
    ask: bool,
    questions: VecDeque<Question>,
    next_question: u16,
    /// The gate has answered.
    begun: bool,
    patience: Patience,
    repeated: u64,
}

impl<'a> Writing<'a> {
    /// A write of whole words to the beginning of `extent`.
    pub fn new(transfer: u16, extent: Extent, data: &'a [u8], now: Duration) -> Self {
        Self {
            transfer,
            extent,
            data,
            blocks: vec![Block::Unsent; extent.blocks() as usize],
            first: 0,
            hand_first: 0,
            next: 0,
            lost: VecDeque::new(),
            under_way: 0,
            sent: 0,
            since_question: 0,
            ask: true,
            questions: VecDeque::new(),
            next_question: 0,
            begun: false,
            patience: Patience::new(now),
            repeated: 0,
        }
    }

    /// Everything is there.
    pub fn is_done(&self) -> bool {
        self.begun && self.first == self.blocks.len()
    }

    /// Blocks that were sent again.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The next message that is to be sent at once.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Message<'a>> {
        if self.is_done() {
            return None;
        }
        if self.ask {
            return Some(self.question(now));
        }
        if !self.begun || self.under_way >= UNDER_WAY_MAX {
            return None;
        }
        let block = self.lost.pop_front().or_else(|| {
            let limit = self.blocks.len().min((self.hand_first + WINDOW_BLOCKS) as usize);
            (self.next < limit).then(|| {
                self.next += 1;
                self.next - 1
            })
        });
        let Some(block) = block else {
            // What was sent since the last question is asked for.
            if self.since_question > 0 {
                return Some(self.question(now));
            }
            return None;
        };
        self.repeated += u64::from(self.blocks[block] == Block::Lost);
        self.sent += 1;
        self.blocks[block] = Block::Sent(self.sent);
        self.under_way += 1;
        self.since_question += 1;
        self.ask = self.since_question >= ASK_EVERY;
        let from = block * BLOCK_BYTES;
        let data = &self.data[from..self.data.len().min(from + BLOCK_BYTES)];
        Some(Message::Data { transfer: self.transfer, block: block as u32, data })
    }

    fn question(&mut self, now: Duration) -> Message<'a> {
        self.ask = false;
        self.since_question = 0;
        let question = self.next_question;
        self.next_question = question.wrapping_add(1);
        if self.questions.len() == QUESTIONS_MAX {
            self.questions.pop_front();
        }
        self.questions.push_back(Question { number: question, sent: self.sent, time: now });
        Message::Ask { transfer: self.transfer, question, extent: self.extent, first: self.first as u32 }
    }

    /// Up to when a message may be waited for.
    pub fn deadline(&self) -> Duration {
        self.patience.deadline()
    }

    /// What time does: for how long nothing has come, if that is too long.
    pub fn on_time(&mut self, now: Duration) -> Option<Duration> {
        if self.patience.is_over(now) {
            self.ask = true;
        }
        self.patience.exhausted(now)
    }

    /// What a message does.
    pub fn on_message(&mut self, now: Duration, message: &Message<'_>) {
        let Message::Status { transfer, question, hand, first, done } = *message else { return };
        if transfer != self.transfer || hand != self.extent.hand {
            return;
        }
        let Some(at) = self.questions.iter().position(|q| q.number == question) else { return };
        let Question { sent, time, .. } = self.questions[at];
        // Answers to earlier questions tell less.
        self.questions.drain(..=at);
        if first as usize > self.blocks.len() {
            return;
        }
        self.begun = true;
        self.patience.answered(now, Some(now.saturating_sub(time)));
        self.hand_first = self.hand_first.max(first);
        for block in self.first..self.next {
            let place = block as u32 % WINDOW_BLOCKS;
            let is_there = (block as u32) < first || done[place as usize / 32] >> (place % 32) & 1 != 0;
            match self.blocks[block] {
                Block::Sent(_) if is_there => {
                    self.blocks[block] = Block::Done;
                    self.under_way -= 1;
                }
                Block::Lost if is_there => {
                    self.blocks[block] = Block::Done;
                    self.lost.retain(|lost| *lost != block);
                }
                Block::Sent(number) if number <= sent => {
                    self.blocks[block] = Block::Lost;
                    self.under_way -= 1;
                    self.lost.push_back(block);
                }
                _ => {}
            }
        }
        let before = self.first;
        while self.blocks.get(self.first) == Some(&Block::Done) {
            self.first += 1;
        }
        // A window that is used up is moved on without waiting.
        let limit = (self.hand_first + WINDOW_BLOCKS) as usize;
        self.ask |= self.first > before && self.next >= limit && self.next < self.blocks.len();
    }
}
