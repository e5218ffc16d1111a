//! The host's side of a read, as a state machine without sockets or clock.

use std::collections::VecDeque;
use std::time::Duration;

use spinnaker_wire::bulk::{BLOCK_BYTES, Extent, FETCH_BLOCKS, Message};

use super::patience::Patience;

/// Blocks that are asked for at most before they have come.
const UNDER_WAY_MAX: u32 = 256;
/// Requests without everything that was asked for.
const REQUESTS_MAX: usize = 8;
const GROUP: usize = FETCH_BLOCKS as usize;

#[derive(Clone, Copy, Debug)]
struct Request {
    group: usize,
    /// What was asked for and has not come.
    wanted: u64,
    time: Duration,
}

/// See the module.
pub(super) struct Reading<'a> {
    transfer: u16,
    extent: Extent,
    data: &'a mut [u8],
    /// Of each group of 64 blocks, what has not come.
    missing: Vec<u64>,
    left: usize,
    /// The first group that was never asked for.
    next: usize,
    /// Groups that are to be asked for again.
    again: VecDeque<usize>,
    /// In the order in which they were sent.
    requests: VecDeque<Request>,
    patience: Patience,
    repeated: u64,
}

impl<'a> Reading<'a> {
    /// A read of all of `extent`, into memory of the same length.
    pub fn new(transfer: u16, extent: Extent, data: &'a mut [u8], now: Duration) -> Self {
        let blocks = extent.blocks() as usize;
        let missing = (0..blocks.div_ceil(GROUP)).map(|group| match blocks - group * GROUP {
            n if n >= GROUP => u64::MAX,
            n => (1 << n) - 1,
        });
        Self {
            transfer,
            extent,
            data,
            missing: missing.collect(),
            left: blocks,
            next: 0,
            again: VecDeque::new(),
            requests: VecDeque::new(),
            patience: Patience::new(now),
            repeated: 0,
        }
    }

    /// Everything has come.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Blocks that were asked for again.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The next message that is to be sent at once.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Message<'a>> {
        let under_way: u32 = self.requests.iter().map(|request| request.wanted.count_ones()).sum();
        if self.requests.len() >= REQUESTS_MAX || under_way >= UNDER_WAY_MAX {
            return None;
        }
        let group = match self.again.pop_front() {
            Some(group) => {
                self.repeated += u64::from(self.missing[group].count_ones());
                group
            }
            None if self.next < self.missing.len() => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        let wanted = self.missing[group];
        self.requests.push_back(Request { group, wanted, time: now });
        let base = (group * GROUP) as u32;
        Some(Message::Fetch { transfer: self.transfer, extent: self.extent, base, wanted })
    }

    /// Up to when a message may be waited for.
    pub fn deadline(&self) -> Duration {
        self.patience.deadline()
    }

    /// What time does: for how long nothing has come, if that is too long.
    pub fn on_time(&mut self, now: Duration) -> Option<Duration> {
        if self.patience.is_over(now) {
            while let Some(request) = self.requests.pop_front() {
                self.ask_again(request);
            }
        }
        self.patience.exhausted(now)
    }

    fn ask_again(&mut self, request: Request) {
        if self.missing[request.group] != 0 && !self.again.contains(&request.group) {
            self.again.push_back(request.group);
        }
    }

    /// What a message does.
    pub fn on_message(&mut self, now: Duration, message: &Message<'_>) {
        let Message::Blocks { transfer, block, data } = *message else { return };
        let from = (block as usize).saturating_mul(BLOCK_BYTES);
        let Some(place) = self.data.get_mut(from..from.saturating_add(data.len())) else { return };
        // Only the last block may be short.
        if transfer != self.transfer
            || (!data.len().is_multiple_of(BLOCK_BYTES) && from + data.len() != self.extent.words as usize * 4)
        {
            return;
        }
        place.copy_from_slice(data);
        self.patience.answered(now, None);
        for block in block as usize..block as usize + data.len().div_ceil(BLOCK_BYTES) {
            self.came(now, block / GROUP, 1 << (block % GROUP));
        }
    }

    fn came(&mut self, now: Duration, group: usize, bit: u64) {
        if self.missing[group] & bit != 0 {
            self.missing[group] &= !bit;
            self.left -= 1;
        }
        let Some(at) = self.requests.iter().position(|request| request.group == group) else { return };
        self.requests[at].wanted &= !bit;
        if self.requests[at].wanted == 0 {
            let time = self.requests[at].time;
            self.patience.answered(now, Some(now.saturating_sub(time)));
            self.requests.remove(at);
            // The gate works in order: what was asked for before is lost.
            for _ in 0..at {
                if let Some(request) = self.requests.pop_front() {
                    self.ask_again(request);
                }
            }
        }
    }
}
