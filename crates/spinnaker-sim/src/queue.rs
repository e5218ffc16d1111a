//! The event queue: a ring of time buckets, each sorted when its time comes; heaps for what comes late into the bucket at
//! hand and for what is far away.
//!
//! Cores of many chips in step make hundreds of events at the same time, so one sort costs much less than a
//! heap. The order is exact: by time, then by the order of pushing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// An event: when, and what (opaque to the queue).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub time_ns: u64,
    /// Push number in the high bits, kind in the low four.
    order: u64,
    pub data: u32,
}

impl Event {
    pub fn kind(&self) -> u8 {
        (self.order & 15) as u8
    }

    /// Orders events of one bucket by a single number.
    fn key_in_bucket(&self) -> u64 {
        // Push numbers have room for 2^53 events.
        (self.time_ns & ((1 << BUCKET_SHIFT) - 1)) << (64 - BUCKET_SHIFT) | self.order
    }
}

/// Nanoseconds of a bucket, as a power of two.
const BUCKET_SHIFT: u32 = 7;
const BUCKETS: usize = 16384;

/// No node.
const NONE: u32 = u32::MAX;

/// An event in a bucket, and the one that came before it.
#[derive(Clone, Copy)]
struct Node {
    time_ns: u64,
    order: u64,
    data: u32,
    next: u32,
}

pub(crate) struct EventQueue {
    /// Events of bucket `at`, the next one last.
    current: Vec<Event>,
    /// Events pushed after that for bucket `at`, or for a time before it.
    late: BinaryHeap<Reverse<Event>>,
    /// Number of the bucket in `current`, counted from time 0.
    at: u64,
    /// For each bucket the number of its latest node, [`NONE`] for an empty one. Nodes are used again latest first, so that they stay
    /// in the host's caches.
    ring: Vec<u32>,
    nodes: Vec<Node>,
    /// The latest free node; others follow.
    free: u32,
    /// Which buckets of the ring hold events.
    occupied: Vec<u64>,
    ring_len: usize,
    far: BinaryHeap<Reverse<Event>>,
    pushed: u64,
}

impl EventQueue {
    pub fn new() -> Self {
        Self {
            current: Vec::new(),
            late: BinaryHeap::new(),
            at: 0,
            ring: vec![NONE; BUCKETS],
            nodes: Vec::new(),
            free: NONE,
            occupied: vec![0; BUCKETS / 64],
            ring_len: 0,
            far: BinaryHeap::new(),
            pushed: 0,
        }
    }

    /// Events pushed so far.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    pub fn push(&mut self, time_ns: u64, kind: u8, data: u32) {
        debug_assert!(kind < 16);
        let event = Event { time_ns, order: self.pushed << 4 | u64::from(kind), data };
        self.pushed += 1;
        let bucket = time_ns >> BUCKET_SHIFT;
        if bucket <= self.at {
            self.late.push(Reverse(event));
        } else if bucket - self.at < BUCKETS as u64 {
            self.put(bucket, event);
        } else {
            self.far.push(Reverse(event));
        }
    }

    fn put(&mut self, bucket: u64, event: Event) {
        let slot = bucket as usize % BUCKETS;
        let node = Node { time_ns: event.time_ns, order: event.order, data: event.data, next: self.ring[slot] };
        if let Some(place) = self.nodes.get_mut(self.free as usize) {
            self.ring[slot] = self.free;
            self.free = place.next;
            *place = node;
        } else {
            self.ring[slot] = self.nodes.len() as u32;
            self.nodes.push(node);
        }
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.ring_len += 1;
    }

    /// Number of the next bucket of the ring that holds something; there must be one.
    fn next_bucket(&self) -> u64 {
        let start = (self.at + 1) as usize % BUCKETS;
        let first = self.occupied[start / 64] >> (start % 64);
        let steps = if first != 0 {
            first.trailing_zeros() as usize
        } else {
            let words = self.occupied.len();
            let from = 64 - start % 64;
            (1..=words)
                .find_map(|i| {
                    let bits = self.occupied[(start / 64 + i) % words];
                    (bits != 0).then(|| from + (i - 1) * 64 + bits.trailing_zeros() as usize)
                })
                .unwrap_or(0)
        };
        self.at + 1 + steps as u64
    }

    /// Brings the next events to `current` or `late`; false if there are none anywhere.
    fn refill(&mut self) -> bool {
        if !self.current.is_empty() || !self.late.is_empty() {
            return true;
        }
        if self.ring_len == 0 {
            match self.far.peek() {
                None => return false,
                Some(Reverse(event)) => self.at = event.time_ns >> BUCKET_SHIFT,
            }
        } else {
            self.at = self.next_bucket();
            let slot = self.at as usize % BUCKETS;
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            let mut at = std::mem::replace(&mut self.ring[slot], NONE);
            while let Some(node) = self.nodes.get_mut(at as usize) {
                self.current.push(Event { time_ns: node.time_ns, order: node.order, data: node.data });
                let next = std::mem::replace(&mut node.next, self.free);
                self.free = at;
                at = next;
            }
            self.ring_len -= self.current.len();
        }
        while let Some(Reverse(event)) = self.far.peek() {
            let bucket = event.time_ns >> BUCKET_SHIFT;
            if bucket >= self.at + BUCKETS as u64 {
                break;
            }
            let event = *event;
            self.far.pop();
            if bucket <= self.at { self.current.push(event) } else { self.put(bucket, event) }
        }
        self.current.sort_unstable_by_key(|event| Reverse(event.key_in_bucket()));
        true
    }

    /// Whether the next event is one that came late.
    fn late_is_next(&self) -> bool {
        match (self.current.last(), self.late.peek()) {
            (Some(event), Some(Reverse(late))) => late < event,
            (None, _) => true,
            (_, None) => false,
        }
    }

    /// Time of the next event.
    pub fn peek_ns(&mut self) -> Option<u64> {
        if !self.refill() {
            return None;
        }
        if self.late_is_next() {
            self.late.peek().map(|event| event.0.time_ns)
        } else {
            self.current.last().map(|event| event.time_ns)
        }
    }

    pub fn pop(&mut self) -> Option<Event> {
        if !self.refill() {
            return None;
        }
        if self.late_is_next() { self.late.pop().map(|event| event.0) } else { self.current.pop() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is pushed comes out by time, then by order of pushing, also when pushes and pops mix.
        #[test]
        fn order_is_exact(steps in prop::collection::vec((0u64..6_000_000, 0usize..4), 1..200)) {
            let mut queue = EventQueue::new();
            let mut model: Vec<(u64, u32)> = Vec::new();
            let mut now = 0;
            for (i, (ahead, pops)) in steps.into_iter().enumerate() {
                // Small and large distances both.
                let time = now + if i % 2 == 0 { ahead } else { ahead % 700 };
                queue.push(time, 3, i as u32);
                model.push((time, i as u32));
                for _ in 0..pops {
                    model.sort_unstable();
                    let Some(event) = queue.pop() else { break };
                    prop_assert_eq!((event.time_ns, event.data, event.kind()), (model[0].0, model[0].1, 3));
                    now = event.time_ns;
                    model.remove(0);
                }
            }
            model.sort_unstable();
            for (time, data) in model {
                prop_assert_eq!(queue.peek_ns(), Some(time));
                let event = queue.pop().expect("as many as pushed");
                prop_assert_eq!((event.time_ns, event.data), (time, data));
            }
            prop_assert!(queue.pop().is_none());
        }
    }
}
