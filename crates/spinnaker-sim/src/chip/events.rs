//! What a chip has to do at a later time, in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::network::Packet;

/// Something that happens at a chip. Cores by physical number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// All bytes of a core's packet are out: it stands before the router.
    CoreSent(u8),
    /// A packet has come over a link.
    Arrived { link: u8, packet: Packet },
    /// The answer to a peek or poke goes out by the link that this came by.
    DirectAnswer { link: u8, packet: Packet },
    /// The router is free for its next packet.
    RouterStep,
    /// A wait of the router for a blocked output ends, if it is still this one.
    RouterTimeout(u32),
    /// An output may have become free.
    RouterRetry,
    /// A packet has come to the end of the path to a core.
    PathEnd(u8),
    /// A timer of a core reaches zero, if it was not set anew since.
    Timer { core: u8, generation: u32 },
    /// A DMA transfer ends.
    Dma,
    /// A frame from outside has arrived at the Ethernet controller.
    Frame,
    /// The Ethernet controller has sent its frame.
    FrameSent,
    /// An edge of the 32 kHz clock that a core's interrupt controller is to show.
    SlowClock(u8),
    /// The watchdog reaches zero, if it was not set anew since.
    Watchdog(u32),
    /// The boot ROM has something to do.
    Rom(RomEvent),
}

impl Event {
    /// Order among events at the same time: what comes from other chips first. When such an event was added depends on how
    /// far chips were run in a round, so the order of adding must not count; that among a chip's own events may.
    fn rank(&self) -> u8 {
        match self {
            Event::Arrived { link, .. } => *link,
            Event::RouterRetry => 6,
            Event::Frame => 7,
            _ => 8,
        }
    }
}

/// What the boot ROM does at a time of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RomEvent {
    /// The self tests are over.
    Ready,
    /// It takes the packet in the monitor's receive register.
    Packet,
    /// It takes a frame from the Ethernet controller.
    Frame,
    /// It says HELLO.
    Hello,
    /// The LED changes.
    Led,
    /// An application core looks at its mailbox.
    Mailbox(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    time_ps: u64,
    sequence: u64,
    event: Event,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time_ps, self.event.rank(), self.sequence).cmp(&(other.time_ps, other.event.rank(), other.sequence))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The events of a chip; those at the same time by [`Event::rank`], then in the order in which they were added.
#[derive(Default)]
pub(crate) struct Events {
    heap: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
}

impl Events {
    pub fn push(&mut self, time_ps: u64, event: Event) {
        self.heap.push(Reverse(Entry { time_ps, sequence: self.sequence, event }));
        self.sequence += 1;
    }

    /// Time of the next event; the end of time without one.
    pub fn next_ps(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |entry| entry.0.time_ps)
    }

    /// The next event.
    pub fn peek(&self) -> Option<(u64, Event)> {
        self.heap.peek().map(|Reverse(entry)| (entry.time_ps, entry.event))
    }

    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.time_ps, entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_then_of_adding() {
        let mut events = Events::default();
        for (time, core) in [(5, 1), (3, 2), (5, 3), (3, 4)] {
            events.push(time, Event::PathEnd(core));
        }
        let order: Vec<_> = std::iter::from_fn(|| events.pop()).collect();
        assert_eq!(
            order,
            [(3, Event::PathEnd(2)), (3, Event::PathEnd(4)), (5, Event::PathEnd(1)), (5, Event::PathEnd(3))]
        );
        assert_eq!(events.next_ps(), u64::MAX);
    }

    #[test]
    fn what_comes_from_outside_goes_first() {
        let packet = Packet::new(0, 1, None);
        let arrivals = [5, 2].map(|link| Event::Arrived { link, packet });
        let mut events = Events::default();
        for event in [Event::PathEnd(1), Event::RouterRetry, arrivals[0], arrivals[1]] {
            events.push(7, event);
        }
        let order: Vec<_> = std::iter::from_fn(|| events.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, [arrivals[1], arrivals[0], Event::RouterRetry, Event::PathEnd(1)]);
    }
}
