//! Samples from the pieces in which they come: in any order, twice, or not at all. Knows neither sockets nor clocks.

use std::collections::VecDeque;
use std::time::Duration;

/// What becomes of a sample of which something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lost {
    /// It is given up, and reported.
    #[default]
    Report,
    /// Its sender is asked again for what is missing, so often; then it is given up, and reported.
    Resend {
        /// How often.
        tries_max: u32,
    },
}

/// How samples are put together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub lost: Lost,
    /// For how long nothing of a sample may come, once it or a later one has begun.
    pub patience: Duration,
    /// Samples that may be under way at once.
    pub window: usize,
    /// Bits of the sequence numbers on the wire.
    pub sequence_bits: u32,
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    /// It is there already, or its sample is over.
    Duplicate,
    /// Its sequence number is none that can come now.
    OutOfWindow,
}

/// What an assembly has to say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    Sample { sequence: u64, values: Vec<Vec<f32>>, stamp: Option<Stamp> },
    Lost { first: u64, count: u64 },
    Ask { input: usize, sequence: u64, first: u32, count: u32 },
}

/// When a sample was pushed and answered: microseconds of machine time, modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When the host had the outputs.
    pub answered_us: u32,
    /// When the sample was pushed.
    pub pushed_us: u32,
}

/// Ranges of one input of one sample that are asked for at once.
const ASKS_MAX: usize = 16;
/// Pieces beyond the window, in order and without one inside between them, that show that the sender has gone on.
const AHEAD_PIECES: u32 = 16;

struct Part {
    values: Vec<Option<f32>>,
    missing: usize,
}

struct Slot {
    parts: Vec<Part>,
    stamp: Option<Stamp>,
    /// When something last came or was asked, once it is known that the sample has been sent.
    since: Option<Duration>,
    tries: u32,
    gone: bool,
}

/// Pieces beyond the window that follow each other.
struct Ahead {
    last: u32,
    pieces: u32,
    since: Duration,
}

pub(super) struct Assembly {
    /// Elements of each input.
    elements: Vec<usize>,
    rules: Rules,
    /// Samples under way; the first has number `next`.
    slots: VecDeque<Slot>,
    next: u64,
    ahead: Option<Ahead>,
    /// The number on the wire that follows the last sample's, once it is known.
    end: Option<u32>,
}

impl Slot {
    fn new(elements: &[usize]) -> Slot {
        let part = |&count: &usize| Part { values: vec![None; count], missing: count };
        Slot { parts: elements.iter().map(part).collect(), stamp: None, since: None, tries: 0, gone: false }
    }

    fn is_complete(&self) -> bool {
        self.parts.iter().all(|part| part.missing == 0)
    }

    /// Missing ranges of an input: first and how many.
    fn missing(&self, input: usize) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for (element, value) in self.parts[input].values.iter().enumerate() {
            let (element, known) = (element as u32, ranges.len());
            match (value, ranges.last_mut()) {
                (Some(_), _) => {}
                // With too many holes, the last range takes the rest.
                (None, Some((first, count))) if *first + *count == element || known == ASKS_MAX => {
                    *count = element + 1 - *first;
                }
                (None, _) => ranges.push((element, 1)),
            }
        }
        ranges
    }
}

impl Assembly {
    pub fn new(elements: Vec<usize>, rules: Rules) -> Assembly {
        let half = 1usize << (rules.sequence_bits.clamp(1, 16) - 1);
        let rules = Rules { window: rules.window.clamp(1, half), ..rules };
        Assembly { elements, rules, slots: VecDeque::new(), next: 0, ahead: None, end: None }
    }

    /// Whether no sample is under way.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.since.is_none()) && self.end.is_none_or(|end| self.distance(end) == 0)
    }

    /// The number of the next sample.
    pub fn next(&self) -> u64 {
        self.next
    }

    fn modulus(&self) -> u64 {
        1 << self.rules.sequence_bits
    }

    /// How far a sequence number of the wire is ahead of the next sample's.
    fn distance(&self, wire: u32) -> u64 {
        u64::from(wire).wrapping_sub(self.next) & (self.modulus() - 1)
    }

    /// The slot of a sequence number of the wire, if it is one that can come now.
    fn find(&mut self, wire: u32) -> Result<usize, Verdict> {
        let distance = self.distance(wire);
        let window = self.rules.window as u64;
        if u64::from(wire) >= self.modulus() {
            return Err(Verdict::OutOfWindow);
        }
        if distance < window {
            while self.slots.len() as u64 <= distance {
                self.slots.push_back(Slot::new(&self.elements));
            }
            return Ok(distance as usize);
        }
        let behind = self.modulus() - distance;
        Err(if behind <= window && behind <= self.next { Verdict::Duplicate } else { Verdict::OutOfWindow })
    }

    /// That a sample has been sent: it and those before it may miss something from now on.
    fn sent(&mut self, slot: usize, now: Duration) {
        for earlier in self.slots.iter_mut().take(slot + 1) {
            earlier.since.get_or_insert(now);
        }
    }

    /// Takes a value of an input.
    pub fn value(&mut self, input: usize, wire: u32, element: usize, value: f32, now: Duration) -> Verdict {
        let at = match self.find(wire) {
            Ok(at) => at,
            Err(verdict) => return verdict,
        };
        self.ahead = None;
        self.sent(at, now);
        let slot = &mut self.slots[at];
        let Some(part) = slot.parts.get_mut(input) else { return Verdict::OutOfWindow };
        match part.values.get_mut(element) {
            Some(place @ None) => *place = Some(value),
            Some(Some(_)) => return Verdict::Duplicate,
            None => return Verdict::OutOfWindow,
        }
        part.missing -= 1;
        slot.since = Some(now);
        Verdict::Accepted
    }

    /// Takes the time stamp of a sample.
    pub fn stamp(&mut self, wire: u32, stamp: Stamp, now: Duration) -> Verdict {
        match self.find(wire) {
            Ok(at) => {
                self.sent(at, now);
                self.slots[at].stamp = Some(stamp);
                Verdict::Accepted
            }
            Err(verdict) => verdict,
        }
    }

    /// The sender does not have a sample any more.
    pub fn gone(&mut self, wire: u32, now: Duration) -> Verdict {
        match self.find(wire) {
            Ok(at) => {
                self.sent(at, now);
                self.slots[at].gone = true;
                Verdict::Accepted
            }
            Err(verdict) => verdict,
        }
    }

    /// The sender has sent all samples before this one, and no more come.
    pub fn ends_before(&mut self, wire: u32, now: Duration) -> Verdict {
        if u64::from(wire) >= self.modulus() || self.distance(wire) > self.modulus() / 2 {
            return Verdict::OutOfWindow;
        }
        self.end = Some(wire);
        self.expect_to_the_end(now);
        Verdict::Accepted
    }

    /// Once the end is known: all before it have been sent, as far as the window goes.
    fn expect_to_the_end(&mut self, now: Duration) {
        let Some(end) = self.end else { return };
        let left = self.distance(end);
        if left > self.modulus() / 2 {
            // The sender has gone on after all.
            self.end = None;
            return;
        }
        let expected = left.min(self.rules.window as u64) as usize;
        while self.slots.len() < expected {
            self.slots.push_back(Slot::new(&self.elements));
        }
        if let Some(last) = expected.checked_sub(1) {
            self.sent(last, now);
        }
    }

    /// Notes a piece with a sequence number beyond the window. One, or some here and there, mean nothing; a row of them in their order
    /// is a sender that has gone on while nothing arrived.
    pub fn beyond(&mut self, wire: u32, now: Duration) {
        let mask = self.modulus() - 1;
        let follows = |last: u32| wire == last || u64::from(wire) == (u64::from(last) + 1) & mask;
        match &mut self.ahead {
            Some(ahead) if follows(ahead.last) => {
                ahead.last = wire;
                ahead.pieces += 1;
            }
            _ => self.ahead = Some(Ahead { last: wire, pieces: 1, since: now }),
        }
    }

    /// What has happened by now; no more than `room` samples.
    pub fn poll(&mut self, now: Duration, mut room: usize) -> Vec<Event> {
        let mut events = Vec::new();
        self.jump(now, &mut events);
        self.expect_to_the_end(now);
        while let Some(head) = self.slots.front() {
            let over = head.gone || self.is_late(head, now) && self.is_given_up(head);
            if head.is_complete() {
                if room == 0 {
                    break;
                }
                room -= 1;
                let Some(slot) = self.slots.pop_front() else { break };
                let values = slot.parts.into_iter().map(|part| part.values.into_iter().flatten().collect()).collect();
                events.push(Event::Sample { sequence: self.next, values, stamp: slot.stamp });
            } else if over {
                self.slots.pop_front();
                events.push(Event::Lost { first: self.next, count: 1 });
            } else {
                break;
            }
            self.next += 1;
        }
        self.ask(now, &mut events);
        events
    }

    fn is_late(&self, slot: &Slot, now: Duration) -> bool {
        slot.since.is_some_and(|since| now.saturating_sub(since) >= self.rules.patience)
    }

    fn is_given_up(&self, slot: &Slot) -> bool {
        match self.rules.lost {
            Lost::Report => true,
            Lost::Resend { tries_max } => slot.tries >= tries_max,
        }
    }

    /// Asks for what is missing of the samples that are late.
    fn ask(&mut self, now: Duration, events: &mut Vec<Event>) {
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if slot.is_complete() || slot.gone || !self.is_late(slot, now) || self.is_given_up(slot) {
                continue;
            }
            let sequence = self.next + at as u64;
            for input in 0..self.elements.len() {
                let ranges = slot.missing(input).into_iter();
                events.extend(ranges.map(|(first, count)| Event::Ask { input, sequence, first, count }));
            }
            let slot = &mut self.slots[at];
            slot.tries += 1;
            slot.since = Some(now);
        }
    }

    /// Goes on where the sender is, if it has left the window behind for good.
    fn jump(&mut self, now: Duration, events: &mut Vec<Event>) {
        let Some(ahead) = &self.ahead else { return };
        // As long as samples of the window are known to have been sent, they are waited for first.
        let waits = self.slots.iter().any(|slot| slot.since.is_some());
        if waits || ahead.pieces < AHEAD_PIECES || now.saturating_sub(ahead.since) < self.rules.patience {
            return;
        }
        let count = self.distance(ahead.last);
        if count > self.modulus() / 2 {
            // What was ahead is behind by now.
            self.ahead = None;
            return;
        }
        events.push(Event::Lost { first: self.next, count });
        self.next += count;
        self.slots.clear();
        self.ahead = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn assembly(lost: Lost) -> Assembly {
        Assembly::new(vec![3, 2], Rules { lost, patience: 10 * MS, window: 4, sequence_bits: 4 })
    }

    /// Sends element `element` of `input`, its value made of all three numbers.
    fn put(a: &mut Assembly, input: usize, sequence: u64, element: usize, now: Duration) -> Verdict {
        a.value(input, (sequence & 15) as u32, element, (sequence * 10) as f32 + (input * 5 + element) as f32, now)
    }

    fn put_all(a: &mut Assembly, sequence: u64, now: Duration) {
        for (input, count) in [(0, 3), (1, 2)] {
            for element in 0..count {
                assert_eq!(put(a, input, sequence, element, now), Verdict::Accepted);
            }
        }
    }

    fn whole(sequence: u64) -> Event {
        let at = |i: u64| (sequence * 10 + i) as f32;
        Event::Sample { sequence, values: vec![vec![at(0), at(1), at(2)], vec![at(5), at(6)]], stamp: None }
    }

    #[test]
    fn samples_come_in_order_whatever_the_order_of_their_pieces() {
        let mut a = assembly(Lost::Report);
        for sequence in 0..100 {
            put_all(&mut a, sequence + 1, MS);
            assert_eq!(a.poll(MS, 9), []);
            assert_eq!(put(&mut a, 1, sequence, 0, MS), Verdict::Accepted);
            assert_eq!(put(&mut a, 1, sequence, 0, MS), Verdict::Duplicate);
            for (input, element) in [(0, 2), (0, 0), (1, 1), (0, 1)] {
                put(&mut a, input, sequence, element, MS);
            }
            assert_eq!(a.poll(MS, 1), [whole(sequence)]);
            // The rest of the modulus is nobody's; behind the window are late ones.
            assert_eq!(put(&mut a, 0, sequence, 0, MS), Verdict::Duplicate);
            assert_eq!(put(&mut a, 0, sequence + 7, 0, MS), Verdict::OutOfWindow);
            a = Assembly { slots: VecDeque::new(), ..a };
        }
    }

    #[test]
    fn what_is_missing_is_reported_after_the_patience() {
        let mut a = assembly(Lost::Report);
        put_all(&mut a, 1, MS);
        put(&mut a, 0, 2, 0, MS);
        assert_eq!(a.poll(10 * MS, 9), []);
        assert_eq!(
            a.poll(11 * MS, 9),
            [Event::Lost { first: 0, count: 1 }, whole(1), Event::Lost { first: 2, count: 1 }]
        );
        assert!(a.is_empty() && a.next() == 3);
    }

    #[test]
    fn what_is_missing_is_asked_for() {
        let mut a = assembly(Lost::Resend { tries_max: 2 });
        put_all(&mut a, 1, MS);
        put(&mut a, 0, 0, 1, MS);
        let ask = |input, first, count| Event::Ask { input, sequence: 0, first, count };
        assert_eq!(a.poll(11 * MS, 9), [ask(0, 0, 1), ask(0, 2, 1), ask(1, 0, 2)]);
        put(&mut a, 1, 0, 0, 12 * MS);
        put(&mut a, 1, 0, 1, 12 * MS);
        assert_eq!(a.poll(21 * MS, 9), []);
        assert_eq!(a.poll(22 * MS, 9), [ask(0, 0, 1), ask(0, 2, 1)]);
        put(&mut a, 0, 0, 0, 23 * MS);
        assert_eq!(a.poll(33 * MS, 9), [Event::Lost { first: 0, count: 1 }, whole(1)]);
        // A sender that has nothing any more ends the waiting.
        put(&mut a, 0, 2, 0, 34 * MS);
        assert_eq!(a.gone(2, 34 * MS), Verdict::Accepted);
        assert_eq!(a.poll(34 * MS, 9), [Event::Lost { first: 2, count: 1 }]);
        // The end shows what was lost at the end.
        assert_eq!(a.ends_before(5, 35 * MS), Verdict::Accepted);
        let asked = a.poll(45 * MS, 9);
        assert_eq!(asked.len(), 4, "{asked:?}");
    }

    #[test]
    fn a_sender_that_has_gone_on_is_followed_and_single_wild_numbers_are_not() {
        let mut a = assembly(Lost::Report);
        put_all(&mut a, 0, MS);
        assert_eq!(a.poll(MS, 9), [whole(0)]);
        for n in 0..100u64 {
            let wild = 6 + n * 7 % 8;
            a.beyond(wild as u32, n as u32 * MS);
            assert_eq!(a.poll(n as u32 * MS, 9), [], "{n}");
        }
        for n in 0..20u32 {
            a.beyond(7 + n / 10, 200 * MS + n * MS);
        }
        // From 1 to 7: the next is number 8.
        assert_eq!(a.poll(220 * MS, 9), [Event::Lost { first: 1, count: 7 }]);
        assert_eq!(a.next(), 8);
        put_all(&mut a, 8, 221 * MS);
        assert_eq!(a.poll(221 * MS, 9), [whole(8)]);
    }

    #[test]
    fn nothing_that_comes_harms() {
        // Any pieces in any order, at any times: sequence numbers rise, nothing is given twice, memory stays bounded.
        let mut state = 1u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for lost in [Lost::Report, Lost::Resend { tries_max: 1 }] {
            let mut a = assembly(lost);
            let (mut expected, mut now) = (0, Duration::ZERO);
            for _ in 0..20_000 {
                now += MS * draw(3) as u32;
                let wire = draw(20) as u32;
                match draw(12) {
                    0 => drop(a.gone(wire, now)),
                    1 => drop(a.ends_before(wire, now)),
                    2 => a.beyond(wire, now),
                    _ => drop(a.value(draw(3) as usize, wire, draw(4) as usize, 1.0, now)),
                }
                assert!(a.slots.len() <= 4);
                for event in a.poll(now, 2) {
                    match event {
                        Event::Sample { sequence, .. } => {
                            assert_eq!(sequence, expected);
                            expected += 1;
                        }
                        Event::Lost { first, count } => {
                            assert_eq!(first, expected);
                            expected += count;
                        }
                        Event::Ask { sequence, .. } => assert!((a.next()..a.next() + 4).contains(&sequence)),
                    }
                }
            }
            assert!(expected > 100);
        }
    }
}
