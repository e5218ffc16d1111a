//! When datagrams are handed to a machine that is behind the clock on the wall: not in a burst, but as far apart as they were
//! sent, as they would have come over a wire.
//!
//! A sender that waits between datagrams does so because the other end needs that time: boot ROMs keep two frames. So what
//! somebody sends is handed over no sooner after what it sent before, in machine time, than came between in real time, up to
//! [`GAP_MAX_NS`]. Whoever was answered meanwhile does not wait for the clock, but for answers, and nothing is held back, nor what he
//! repeated until then: on a machine much slower than the clock, what is held back comes after many more repetitions.

use std::collections::BTreeMap;

/// Longest gap that is kept. A board has long done by then what it does about a datagram, and a sender that tries again after a
/// time-out is not to wait for that long once more.
const GAP_MAX_NS: u64 = 20_000_000;
/// Datagrams that wait in all; more are lost.
const WAITING_MAX: usize = 4096;
/// Senders that are remembered before those that have been quiet are forgotten.
const SENDERS_MAX: usize = 1024;

/// What is known of a sender.
#[derive(Debug, Clone, Copy)]
struct Sender {
    /// When its last datagram came, real time, ns.
    came_ns: u64,
    /// When it is handed over, machine time, ns.
    due_ns: u64,
    /// It has been answered since.
    answered: bool,
}

/// Datagrams that wait to be handed over, from senders known by `K`.
#[derive(Debug)]
pub(super) struct Pacing<K, T> {
    senders: BTreeMap<K, Sender>,
    /// By when they are due, and in the order in which they came.
    waiting: BTreeMap<(u64, u64), (K, T)>,
    number: u64,
}

impl<K: Ord + Copy, T> Pacing<K, T> {
    pub fn new() -> Self {
        Self { senders: BTreeMap::new(), waiting: BTreeMap::new(), number: 0 }
    }

    /// A datagram has come at `came_ns` of real time, while machine time is `now_ns`. False if it is lost: too many wait.
    pub fn push(&mut self, sender: K, came_ns: u64, now_ns: u64, datagram: T) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        let due_ns = match self.senders.get(&sender) {
            None => now_ns,
            Some(last) => {
                let gap_ns = if last.answered { 0 } else { came_ns.saturating_sub(last.came_ns).min(GAP_MAX_NS) };
                now_ns.max(last.due_ns + gap_ns)
            }
        };
        if self.senders.len() >= SENDERS_MAX {
            self.senders.retain(|_, sender| sender.due_ns + GAP_MAX_NS > now_ns);
        }
        self.senders.insert(sender, Sender { came_ns, due_ns, answered: false });
        self.number += 1;
        self.waiting.insert((due_ns, self.number), (sender, datagram));
        true
    }

    /// Something goes out to a sender, at `now_ns` of machine time.
    pub fn answered(&mut self, sender: K, now_ns: u64) {
        let Some(known) = self.senders.get_mut(&sender) else { return };
        known.answered = true;
        if known.due_ns <= now_ns {
            return;
        }
        known.due_ns = now_ns;
        let later = self.waiting.range((now_ns + 1, 0)..).filter(|(_, (from, _))| *from == sender);
        let later: Vec<(u64, u64)> = later.map(|(key, _)| *key).collect();
        for (due_ns, number) in later {
            if let Some(datagram) = self.waiting.remove(&(due_ns, number)) {
                self.waiting.insert((now_ns, number), datagram);
            }
        }
    }

    /// When the next one is due, machine time, ns.
    pub fn next_ns(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(&(due_ns, _), _)| due_ns)
    }

    /// The next one, if it is due.
    pub fn pop(&mut self, now_ns: u64) -> Option<T> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now_ns)?;
        Some(first.remove().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn all_due(pacing: &mut Pacing<u8, u32>) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| pacing.next_ns().and_then(|ns| Some((ns / MS, pacing.pop(ns)?)))).collect()
    }

    #[test]
    fn what_came_while_the_machine_stood_still_keeps_its_spacing() {
        let mut pacing = Pacing::new();
        // A millisecond apart, a pause that is longer than what is kept, and two at once.
        for (number, came_ms) in [100, 101, 102, 402, 402].into_iter().enumerate() {
            assert!(pacing.push(1, came_ms * MS, 7 * MS, number as u32));
        }
        assert!(pacing.push(2, 102 * MS, 7 * MS, 9), "another sender does not wait for the first");
        assert_eq!(pacing.pop(6 * MS), None);
        assert_eq!(all_due(&mut pacing), [(7, 0), (7, 9), (8, 1), (9, 2), (29, 3), (29, 4)]);
        assert_eq!(pacing.next_ns(), None);
    }

    #[test]
    fn whoever_is_answered_is_not_held_back() {
        let mut pacing = Pacing::new();
        for round in 0..4 {
            // The machine is four times too slow: a millisecond of its time passes while the sender waits four.
            let now_ns = round * MS;
            assert!(pacing.push(1, 4 * round * MS, now_ns, round as u32));
            assert_eq!(pacing.pop(now_ns), Some(round as u32));
            pacing.answered(1, now_ns);
        }
        // What it had repeated goes first, but is not held back either.
        pacing.push(1, 16 * MS, 4 * MS, 4);
        pacing.push(1, 26 * MS, 4 * MS, 5);
        pacing.answered(1, 4 * MS);
        pacing.push(1, 26 * MS, 4 * MS, 6);
        assert_eq!(all_due(&mut pacing), [(4, 4), (4, 5), (4, 6)]);
    }

    #[test]
    fn a_fast_machine_gets_all_at_once_and_nothing_grows_without_bound() {
        let mut pacing = Pacing::new();
        pacing.push(0, 0, 0, 0);
        pacing.push(0, MS, 100 * MS, 1);
        assert_eq!((pacing.pop(0), pacing.pop(100 * MS)), (Some(0), Some(1)));
        let mut wide = Pacing::new();
        for sender in 0..10 * SENDERS_MAX as u64 {
            wide.push(sender, sender, sender * MS, ());
            assert!(wide.pop(sender * MS).is_some() && wide.senders.len() <= SENDERS_MAX);
        }
        assert_eq!((0..2 * WAITING_MAX).filter(|_| wide.push(0, 0, 0, ())).count(), WAITING_MAX);
    }
}
