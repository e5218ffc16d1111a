//! When datagrams are handed to a machine that is behind the clock on the wall: not in a burst, but as far apart as they were
//! sent, as they would have come over a wire.
//!
//! A sender that waits between datagrams does so because the other end needs that time: boot ROMs keep two frames. So what
//! somebody sends to a port is handed over no sooner after what it sent there before, in machine time, than came between in real time, up
//! to what the port's program needs. Whoever was answered meanwhile does not wait for the clock, but for answers, and nothing is held
//! back, nor what he repeated until then: on a machine much slower than the clock, what is held back comes after many more repetitions.
//!
//! A question that is repeated before the machine has had time for it would not have been repeated to a machine that keeps up with the
//! clock: it is not handed over once more. A monitor drops what it has no room for, new questions with repeated ones.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;

use super::BOOT_PORT;

/// Longest gap that is kept before the boot ROM.
const GAP_BOOT_MAX_NS: u64 = 20_000_000;
/// Longest gap that is kept before a monitor, which has done by then what some requests want (0.02 to 0.1 ms each). A sender that tries
/// again after a time-out is not to wait for much longer: a machine at a thousandth of the clock takes half a second for it.
const GAP_MAX_NS: u64 = 500_000;
/// Machine time after which a question that nobody has answered was lost, ns.
const ANSWER_MAX_NS: u64 = 5_000_000;
/// Datagrams that wait in all; more are lost.
const WAITING_MAX: usize = 4096;
/// Senders that are remembered before those that have been quiet are forgotten.
const SENDERS_MAX: usize = 1024;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sender {
    /// The board, by number, and its port.
    pub board: usize,
    pub port: u16,
    pub host: SocketAddrV4,
}

impl Sender {
    fn gap_max_ns(&self) -> u64 {
        if self.port == BOOT_PORT { GAP_BOOT_MAX_NS } else { GAP_MAX_NS }
    }
}

/// What is known of a sender.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// When its last datagram came, real time, ns.
    came_ns: u64,
    /// When it is handed over, machine time, ns.
    due_ns: u64,
    /// It has been answered since.
    answered: bool,
}

/// A question that has not been answered yet.
#[derive(Debug)]
struct Question<T> {
    sender: Sender,
    seq: u16,
    /// When it is or was handed over, machine time, ns.
    due_ns: u64,
    datagram: T,
}

/// Datagrams that wait to be handed over.
#[derive(Debug)]
pub(super) struct Pacing<T> {
    senders: BTreeMap<Sender, Known>,
    /// By when they are due, and in the order in which they came.
    waiting: BTreeMap<(u64, u64), (Sender, T)>,
    number: u64,
    /// Those that the machine may still answer; all of them are among the last [`WAITING_MAX`].
    questions: VecDeque<Question<T>>,
}

impl<T: Clone + PartialEq> Pacing<T> {
    pub fn new() -> Self {
        Self { senders: BTreeMap::new(), waiting: BTreeMap::new(), number: 0, questions: VecDeque::new() }
    }

    /// A datagram has come at `came_ns` of real time, while machine time is `now_ns`. `seq`: it is a question that wants an answer with this
    /// sequence number. False if it is lost: too many wait.
    pub fn push(&mut self, sender: Sender, came_ns: u64, now_ns: u64, seq: Option<u16>, datagram: T) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.questions.retain(|question| question.due_ns + ANSWER_MAX_NS > now_ns);
        let is_repeated = |question: &Question<T>| {
            (question.sender, Some(question.seq)) == (sender, seq) && question.datagram == datagram
        };
        if self.questions.iter().any(is_repeated) {
            return true;
        }
        let due_ns = match self.senders.get(&sender) {
            None => now_ns,
            Some(last) => {
                let gap_ns =
                    if last.answered { 0 } else { came_ns.saturating_sub(last.came_ns).min(sender.gap_max_ns()) };
                now_ns.max(last.due_ns + gap_ns)
            }
        };
        if self.senders.len() >= SENDERS_MAX {
            self.senders.retain(|_, known| known.due_ns + GAP_BOOT_MAX_NS > now_ns);
        }
        self.senders.insert(sender, Known { came_ns, due_ns, answered: false });
        if let Some(seq) = seq {
            if self.questions.len() == WAITING_MAX {
                self.questions.pop_front();
            }
            self.questions.push_back(Question { sender, seq, due_ns, datagram: datagram.clone() });
        }
        self.number += 1;
        self.waiting.insert((due_ns, self.number), (sender, datagram));
        true
    }

    /// Something goes out to a sender, at `now_ns` of machine time: the answer to what it asked with `seq`, if there is one.
    pub fn answered(&mut self, sender: Sender, now_ns: u64, seq: Option<u16>) {
        self.questions.retain(|question| (question.sender, Some(question.seq)) != (sender, seq));
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
        for question in self.questions.iter_mut().filter(|question| question.sender == sender) {
            question.due_ns = question.due_ns.min(now_ns);
        }
    }

    /// When the next one is due, machine time, ns.
    pub fn next_ns(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(&(due_ns, _), _)| due_ns)
    }

    /// The next one, if it is due.
    pub fn pop(&mut self, now_ns: u64) -> Option<(Sender, T)> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now_ns)?;
        Some(first.remove())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::SCP_PORT;
    use super::*;

    const US: u64 = 1000;
    const MS: u64 = 1000 * US;

    fn sender(port: u16, host: u16) -> Sender {
        Sender { board: 0, port, host: SocketAddrV4::new(Ipv4Addr::LOCALHOST, host) }
    }

    fn all_due(pacing: &mut Pacing<u32>) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| pacing.next_ns().and_then(|ns| Some((ns / MS, pacing.pop(ns)?.1)))).collect()
    }

    #[test]
    fn what_came_while_the_machine_stood_still_keeps_its_spacing() {
        let mut pacing = Pacing::new();
        for (port, longest_us) in [(BOOT_PORT, 20_000), (SCP_PORT, 500)] {
            // 0.1 ms apart, a pause that is longer than what is kept, and two at once.
            for (number, came_us) in [100, 200, 300, 30_300, 30_300].into_iter().enumerate() {
                assert!(pacing.push(sender(port, 1), came_us * US, 7 * MS, None, number as u32));
            }
            let waits = pacing.push(sender(port, 2), 300 * US, 7 * MS, None, 9);
            assert!(waits, "another sender does not wait for the first");
            assert_eq!(pacing.pop(6 * MS), None);
            let due_us = std::iter::from_fn(|| pacing.next_ns().and_then(|ns| Some((ns / US, pacing.pop(ns)?.1))));
            let last_us = 7200 + longest_us;
            let expected = [(7000, 0), (7000, 9), (7100, 1), (7200, 2), (last_us, 3), (last_us, 4)];
            assert_eq!(due_us.collect::<Vec<_>>(), expected);
            assert_eq!(pacing.next_ns(), None);
        }
    }

    #[test]
    fn whoever_is_answered_is_not_held_back() {
        let (mut pacing, host) = (Pacing::new(), sender(SCP_PORT, 1));
        for round in 0..4 {
            // The machine is four times too slow: a millisecond of its time passes while the sender waits four.
            let now_ns = round * MS;
            assert!(pacing.push(host, 4 * round * MS, now_ns, None, round as u32));
            assert_eq!(pacing.pop(now_ns), Some((host, round as u32)));
            pacing.answered(host, now_ns, None);
        }
        // What it had repeated goes first, but is not held back either.
        pacing.push(host, 16 * MS, 4 * MS, None, 4);
        pacing.push(host, 26 * MS, 4 * MS, None, 5);
        pacing.answered(host, 4 * MS, None);
        pacing.push(host, 26 * MS, 4 * MS, None, 6);
        assert_eq!(all_due(&mut pacing), [(4, 4), (4, 5), (4, 6)]);
    }

    #[test]
    fn what_is_repeated_before_there_was_time_for_it_is_handed_over_once() {
        let (mut pacing, host) = (Pacing::new(), sender(SCP_PORT, 1));
        // The machine stands still while somebody loses patience; what is no question may well be said twice.
        for came_ms in [0, 40, 110] {
            pacing.push(host, came_ms * MS, 0, Some(7), 77);
            pacing.push(host, came_ms * MS, 0, None, 5);
        }
        pacing.push(host, 110 * MS, 0, Some(7), 78);
        pacing.push(sender(SCP_PORT, 2), 110 * MS, 0, Some(7), 77);
        let handed_over: Vec<u32> = all_due(&mut pacing).iter().map(|&(_, datagram)| datagram).collect();
        assert_eq!(handed_over, [77, 5, 77, 5, 5, 78]);
        // Lost, it may be asked again; so may what has been answered.
        pacing.push(host, 200 * MS, 5 * MS, Some(7), 77);
        pacing.answered(host, 6 * MS, Some(7));
        pacing.push(host, 200 * MS, 6 * MS, Some(7), 77);
        assert_eq!(all_due(&mut pacing).len(), 2);
    }

    #[test]
    fn a_fast_machine_gets_all_at_once_and_nothing_grows_without_bound() {
        let mut pacing = Pacing::new();
        let host = sender(SCP_PORT, 0);
        pacing.push(host, 0, 0, None, 0);
        pacing.push(host, MS, 100 * MS, None, 1);
        assert_eq!((pacing.pop(0), pacing.pop(100 * MS)), (Some((host, 0)), Some((host, 1))));
        let mut wide = Pacing::new();
        for number in 0..10 * SENDERS_MAX as u16 {
            let at_ns = u64::from(number) * MS;
            wide.push(sender(SCP_PORT, number), at_ns, at_ns, None, ());
            assert!(wide.pop(at_ns).is_some() && wide.senders.len() <= SENDERS_MAX);
        }
        assert_eq!((0..2 * WAITING_MAX).filter(|_| wide.push(host, 0, 0, None, ())).count(), WAITING_MAX);
    }
}
