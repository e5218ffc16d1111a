//! Rounds: which chips run, how far, on which threads; and what goes from chip to chip between rounds.
//!
//! Nothing gets from one router to the next in less than a least time, the hop. So nothing that another chip does from its
//! next event on reaches a chip before that event and a hop for each link between the two: until then the chip can run
//! by itself. (What it sends itself may come back two hops later; it ends its run by that.) Chips that cannot run, or have
//! nothing to do before then, are left out of a round.
//!
//! How far a caller lets time pass ends no round: those that begin before that time are made, all others are not. So
//! results do not depend on the caller's steps, and chips may be a few microseconds ahead of the machine's time: less than a frame
//! takes on the cable to a board, which nothing from outside is faster than ([`AHEAD_PS`]).
//!
//! While a board boots, most rounds have three to six chips with one or two microseconds of the host's time in all, and
//! three quarters of that are one chip's: a second thread could save a fifth at best, and the hand-over costs as much. It
//! helps where many cores compute. Chips that went on without rounds would use more threads, but would cut the turns of
//! their cores where the host's threads happen to be.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use spinnaker_machine::ChipXy;

use super::CycleMachine;
use super::host::HostSide;
use crate::chip::Chip;

/// Turns that an idle thread waits for the next round before it sleeps.
const SPINS: u32 = 2_000;
/// Turns that a thread waits for the others to end a round before it offers its processor.
const SPINS_AT_END: u32 = 500;
/// Chips nearer than this are looked at one by one; others count as this far away.
pub(super) const NEAR_HOPS: usize = 3;
/// No round goes on for longer than so much after its first event.
pub(super) const AHEAD_PS: u64 = 6_000_000;
/// Round number that ends the threads.
const LAST: u64 = u64::MAX;

impl CycleMachine {
    pub(super) fn run_until_ps(&mut self, end_ps: u64) {
        self.run(end_ps, false);
    }

    /// Makes all rounds that begin before a time; if wanted less, those until a core met a breakpoint. Whether one did.
    pub(super) fn run(&mut self, end_ps: u64, to_breakpoint: bool) -> bool {
        let active = std::mem::take(&mut self.active);
        let mut run = Run {
            chips: &self.chips,
            places: &self.places,
            next_ps: &mut self.next_ps,
            work: &mut self.work,
            hand_off_work: self.hand_off_work,
            host: &mut self.host,
            near: &self.near,
            hop_ps: self.lookahead_ps,
            active,
            ahead_ps: self.ahead_ps,
            stops: 0,
            to_breakpoint,
        };
        if self.threads > 1 && run.chips.len() > 1 {
            run.on_threads(end_ps, self.threads);
        } else {
            run.alone(end_ps);
        }
        let stops = run.stops;
        self.ahead_ps = run.ahead_ps;
        self.active = run.active;
        self.stops += stops;
        let stopped = to_breakpoint && stops > 0;
        // What is left to do comes after everything that was done, but for what others did in the same few hops.
        let next_ps = self.next_ps.iter().copied().min().unwrap_or(end_ps);
        self.now_ps = self.now_ps.max(if stopped { next_ps.min(end_ps) } else { end_ps });
        stopped
    }
}

/// A run of the machine up to a time.
struct Run<'a> {
    chips: &'a [Mutex<Chip>],
    places: &'a [ChipXy],
    next_ps: &'a mut [u64],
    /// Measure of what a chip has to do in a round: one, and one for each core that runs.
    work: &'a mut [usize],
    /// Work of a round from which on it is shared.
    hand_off_work: usize,
    host: &'a mut HostSide,
    near: &'a [Vec<(u32, u64)>],
    hop_ps: u64,
    /// Chips of the round, and until when each runs.
    active: Vec<(usize, u64)>,
    /// Until when any chip was let run.
    ahead_ps: u64,
    /// Breakpoints met.
    stops: u64,
    to_breakpoint: bool,
}

/// Lets a chip run; nobody else has it.
fn advance(chip: &Mutex<Chip>, end_ps: u64) {
    if let Ok(mut chip) = chip.lock() {
        chip.advance(end_ps);
    }
}

impl Run<'_> {
    fn alone(&mut self, end_ps: u64) {
        while self.begin(end_ps) {
            self.active.iter().for_each(|&(chip, until_ps)| advance(&self.chips[chip], until_ps));
            self.exchange();
        }
    }

    fn on_threads(&mut self, end_ps: u64, threads: usize) {
        let shared = Shared::new(self.chips, threads);
        let shared = &shared;
        thread::scope(|scope| {
            // An idle machine needs none.
            let mut others = Vec::new();
            let mut number = 0;
            while self.begin(end_ps) {
                let work: usize = self.active.iter().map(|&(chip, _)| self.work[chip]).sum();
                if work < self.hand_off_work {
                    self.active.iter().for_each(|&(chip, until_ps)| advance(&self.chips[chip], until_ps));
                } else {
                    if others.is_empty() {
                        others.extend((1..threads).map(|thread| scope.spawn(move || shared.serve(thread))));
                    }
                    number += 1;
                    shared.open(number, &self.active);
                    if shared.sleeping.load(Ordering::SeqCst) {
                        others.iter().for_each(|other| other.thread().unpark());
                    }
                    shared.work(number, 0);
                    shared.close(self.active.len());
                }
                self.exchange();
            }
            shared.round.store(LAST, Ordering::SeqCst);
            others.iter().for_each(|other| other.thread().unpark());
        });
    }

    /// Chooses the chips of the next round. False when there is nothing left to do before `end_ps`.
    fn begin(&mut self, end_ps: u64) -> bool {
        if self.to_breakpoint && self.stops > 0 {
            return false;
        }
        // The next chip, and the next but one.
        let (mut first, mut first_ps, mut second_ps) = (0, u64::MAX, u64::MAX);
        for (chip, &next_ps) in self.next_ps.iter().enumerate() {
            if next_ps < first_ps {
                (first, first_ps, second_ps) = (chip, next_ps, first_ps);
            } else if next_ps < second_ps {
                second_ps = next_ps;
            }
        }
        if first_ps >= end_ps {
            return false;
        }
        let far_ps = NEAR_HOPS as u64 * self.hop_ps;
        let last_ps = first_ps.saturating_add(AHEAD_PS);
        self.active.clear();
        if second_ps >= first_ps.saturating_add(far_ps) {
            // All others have nothing to do before anything could reach them.
            let until_ps = self.until(first, last_ps.min(second_ps.saturating_add(far_ps)));
            self.ahead_ps = self.ahead_ps.max(until_ps);
            self.active.push((first, until_ps));
            return true;
        }
        for (chip, &next_ps) in self.next_ps.iter().enumerate() {
            let others_ps = if chip == first { second_ps } else { first_ps };
            let until_ps = last_ps.min(others_ps.saturating_add(far_ps));
            if next_ps >= until_ps {
                continue;
            }
            let until_ps = self.until(chip, until_ps);
            if next_ps < until_ps {
                self.ahead_ps = self.ahead_ps.max(until_ps);
                self.active.push((chip, until_ps));
            }
        }
        true
    }

    /// Until when a chip may run, by the chips that are near it; at most until `until_ps`.
    fn until(&self, chip: usize, until_ps: u64) -> u64 {
        let reached = |&(other, distance_ps): &(u32, u64)| self.next_ps[other as usize].saturating_add(distance_ps);
        self.near[chip].iter().map(reached).min().map_or(until_ps, |ps| ps.min(until_ps))
    }

    /// Takes what chips have sent to where it goes: chips in order, so that it does not matter who ran first.
    fn exchange(&mut self) {
        for &(index, _) in &self.active {
            let Ok(mut chip) = self.chips[index].lock() else { continue };
            self.next_ps[index] = chip.next_ps();
            self.work[index] = 1 + chip.running_cores();
            self.stops += std::mem::take(&mut chip.stops);
            chip.noc.outbox_ps = u64::MAX;
            if chip.noc.outbox.is_empty() && chip.noc.frames_out.is_empty() {
                continue;
            }
            let mut messages = std::mem::take(&mut chip.noc.outbox);
            let frames = std::mem::take(&mut chip.noc.frames_out);
            drop(chip);
            for message in messages.drain(..) {
                let to = message.chip as usize;
                if let Ok(mut chip) = self.chips[to].lock() {
                    chip.deliver(message);
                    self.next_ps[to] = chip.next_ps();
                }
            }
            let Ok(mut chip) = self.chips[index].lock() else { continue };
            chip.noc.outbox = messages;
            for (time_ps, frame) in frames {
                if let Some((time_ps, frame)) = self.host.take(index as u32, self.places[index], time_ps, frame) {
                    chip.deliver_frame(time_ps, frame);
                }
            }
            self.next_ps[index] = chip.next_ps();
        }
    }
}

/// What the threads of a run share: the chips of a round, which they claim one by one; each thread first those of its own
/// share, whose data its processor's caches have, then what is left.
///
/// A place is claimed by turning its round number from open to taken, which succeeds once a round: a thread that is late
/// has another number. What else belongs to the place was written before it was opened and stays until all are done.
struct Shared<'a> {
    chips: &'a [Mutex<Chip>],
    places: Vec<Place>,
    count: AtomicUsize,
    /// Number of the present round; [`LAST`] ends the threads.
    round: AtomicU64,
    done: AtomicUsize,
    /// A thread has gone to sleep since it was last woken.
    sleeping: AtomicBool,
    threads: usize,
}

/// A chip of a round.
#[derive(Default)]
struct Place {
    chip: AtomicUsize,
    until_ps: AtomicU64,
    /// Twice the number of the round, one more when it is taken.
    state: AtomicU64,
}

impl<'a> Shared<'a> {
    fn new(chips: &'a [Mutex<Chip>], threads: usize) -> Self {
        Self {
            chips,
            places: chips.iter().map(|_| Place::default()).collect(),
            count: AtomicUsize::new(0),
            round: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            sleeping: AtomicBool::new(false),
            threads,
        }
    }

    fn open(&self, number: u64, active: &[(usize, u64)]) {
        self.done.store(0, Ordering::Relaxed);
        for (place, &(chip, until_ps)) in self.places.iter().zip(active) {
            place.chip.store(chip, Ordering::Relaxed);
            place.until_ps.store(until_ps, Ordering::Relaxed);
            place.state.store(2 * number, Ordering::Release);
        }
        self.count.store(active.len(), Ordering::Relaxed);
        self.round.store(number, Ordering::SeqCst);
    }

    /// Waits until all chips of the round are done.
    fn close(&self, count: usize) {
        let mut turns = 0u32;
        while self.done.load(Ordering::Acquire) < count {
            turns += 1;
            if turns > SPINS_AT_END {
                thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Takes chips of the round until none is left.
    fn work(&self, number: u64, thread: usize) {
        let places = &self.places[..self.count.load(Ordering::Relaxed)];
        let own = |place: &&Place| place.chip.load(Ordering::Relaxed) % self.threads == thread;
        places.iter().filter(own).chain(places).for_each(|place| self.take(place, number));
    }

    fn take(&self, place: &Place, number: u64) {
        let (open, taken) = (2 * number, 2 * number + 1);
        if place.state.compare_exchange(open, taken, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            let chip = place.chip.load(Ordering::Relaxed);
            advance(&self.chips[chip], place.until_ps.load(Ordering::Relaxed));
            self.done.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Works on every round until the last.
    fn serve(&self, thread: usize) {
        let (mut seen, mut turns) = (0, 0);
        loop {
            let number = self.round.load(Ordering::SeqCst);
            if number == LAST {
                return;
            }
            if number != seen {
                self.work(number, thread);
                (seen, turns) = (number, 0);
            } else if turns < SPINS {
                turns += 1;
                std::hint::spin_loop();
            } else {
                // Who opens a round after this sees the flag; a round that was opened before is seen here.
                self.sleeping.store(true, Ordering::SeqCst);
                if self.round.load(Ordering::SeqCst) == seen {
                    thread::park();
                }
                self.sleeping.store(false, Ordering::SeqCst);
                turns = 0;
            }
        }
    }
}
