//! One direction of a link between two chips, as its sender sees it: where it leads, when it is free, and how many packets
//! the buffers of both ends still take.

use std::collections::VecDeque;

/// The far end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Output {
    /// Chip there, by index.
    pub chip: u32,
    /// Its link that packets arrive by.
    pub link: u8,
}

/// The sending side.
///
/// A packet takes a credit when it starts; the receiver's router gives it back when it takes the packet, and the sender
/// knows of it one least latency later (the window of the simulation, `router_ns + link_short_ns`). A link without a
/// working other end takes one packet into its transmitter and never another.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub to: Option<Output>,
    /// Picoseconds that a packet without payload takes, and one with.
    pub short_ps: u64,
    pub long_ps: u64,
    /// Off by the link disable register of this chip.
    pub disabled: bool,
    free_ps: u64,
    credits: u32,
    credits_max: u32,
    /// When credits come back.
    returning: VecDeque<u64>,
    /// Packets that were given to it.
    pub packets: u64,
}

impl Link {
    /// A link whose buffers hold `credits` packets (one, for ever, where there is no other end).
    pub fn new(to: Option<Output>, short_ps: u64, long_ps: u64, credits: u32) -> Self {
        let credits = if to.is_some() { credits } else { 1 };
        Self {
            to,
            short_ps,
            long_ps,
            disabled: false,
            free_ps: 0,
            credits,
            credits_max: credits,
            returning: VecDeque::with_capacity(credits as usize),
            packets: 0,
        }
    }

    /// Whether it takes a packet at this time.
    pub fn takes(&mut self, now_ps: u64) -> bool {
        while self.returning.front().is_some_and(|&at| at <= now_ps) {
            self.returning.pop_front();
            // One for a packet from before this end was switched on is one too many.
            self.credits = self.credits_max.min(self.credits + 1);
        }
        self.credits > 0 && !self.disabled
    }

    /// The next time at which it may take one, if it does not now.
    pub fn next_credit_ps(&self) -> Option<u64> {
        self.returning.front().copied()
    }

    /// The receiver has taken a packet; the sender knows from `at_ps` on. Times do not decrease.
    pub fn give_back(&mut self, at_ps: u64) {
        self.returning.push_back(at_ps);
    }

    /// Sends a packet that is ready at `ready_ps`; says when it is at the other end. Only after [`Link::takes`].
    pub fn send(&mut self, ready_ps: u64, long: bool) -> u64 {
        self.credits = self.credits.saturating_sub(1);
        self.packets += 1;
        self.free_ps = self.free_ps.max(ready_ps) + if long { self.long_ps } else { self.short_ps };
        self.free_ps
    }

    /// What takes its place when the other end is switched off or on: empty, but as this end is set.
    pub fn replaced(&self, other: Self) -> Self {
        Self { disabled: self.disabled, packets: self.packets, ..other }
    }

    /// A reset of the transmitter: a packet that nobody took is gone from it.
    pub fn clear(&mut self) {
        if self.to.is_none() {
            self.credits = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_follow_each_other_and_credits_run_out() {
        let mut link = Link::new(Some(Output { chip: 1, link: 3 }), 100, 180, 2);
        assert!(link.takes(0));
        assert_eq!(link.send(10, false), 110);
        assert!(link.takes(20));
        assert_eq!(link.send(20, true), 290);
        assert!(!link.takes(300));
        link.give_back(400);
        assert_eq!(link.next_credit_ps(), Some(400));
        assert!(!link.takes(399) && link.takes(400));
    }

    #[test]
    fn a_loose_end_takes_one_packet() {
        let mut link = Link::new(None, 100, 180, 4);
        assert!(link.takes(0));
        link.send(0, false);
        assert!(!link.takes(1 << 40));
        link.clear();
        assert!(link.takes(1 << 40));
    }
}
