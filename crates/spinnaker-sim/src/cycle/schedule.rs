//! Windows of time: which chips run, how far, on which threads; and what goes from chip to chip between windows.
//!
//! A window is as long as the least time from one router to the next, so nothing that a chip does in it reaches another
//! before its end. Chips without anything to do are left out, and time jumps from window to window. A chip that is the
//! only one with something to do runs on until the next one wakes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use spinnaker_machine::ChipXy;

use super::CycleMachine;
use super::host::HostSide;
use crate::chip::Chip;

/// Chips that must have something to do in a window before another thread is asked: handing over costs more than it
/// saves below that.
const SHARED_MIN: usize = 6;
/// Turns that an idle thread waits for the next window before it sleeps.
const SPINS: u32 = 2_000;
/// Turns that a thread waits for the others to end a window before it offers its processor.
const SPINS_AT_END: u32 = 500;
/// Index part of a claim.
const INDEX: u64 = u32::MAX as u64;
/// Window number that ends the threads.
const LAST: u64 = INDEX;

impl CycleMachine {
    pub(super) fn run_until_ps(&mut self, end_ps: u64) {
        self.run(end_ps, false);
    }

    /// Runs until a time; if wanted less, until after the window in which a core met a breakpoint. Whether one did.
    pub(super) fn run(&mut self, end_ps: u64, to_breakpoint: bool) -> bool {
        let active = std::mem::take(&mut self.active);
        let mut run = Run {
            chips: &self.chips,
            places: &self.places,
            next_ps: &mut self.next_ps,
            host: &mut self.host,
            lookahead_ps: self.lookahead_ps,
            active,
            stops: 0,
            to_breakpoint,
            end_ps: 0,
        };
        if self.threads > 1 && run.chips.len() >= SHARED_MIN {
            run.on_threads(end_ps, self.threads);
        } else {
            run.alone(end_ps);
        }
        let (stops, reached_ps) = (run.stops, run.end_ps);
        self.active = run.active;
        self.stops += stops;
        let stopped = to_breakpoint && stops > 0;
        self.now_ps = self.now_ps.max(if stopped { reached_ps } else { end_ps });
        stopped
    }
}

/// A run of the machine up to a time.
struct Run<'a> {
    chips: &'a [Mutex<Chip>],
    places: &'a [ChipXy],
    next_ps: &'a mut [u64],
    host: &'a mut HostSide,
    lookahead_ps: u64,
    /// Chips of the window.
    active: Vec<usize>,
    /// Breakpoints met.
    stops: u64,
    to_breakpoint: bool,
    /// End of the latest window.
    end_ps: u64,
}

/// Lets a chip run; nobody else has it.
fn advance(chip: &Mutex<Chip>, end_ps: u64) {
    if let Ok(mut chip) = chip.lock() {
        chip.advance(end_ps);
    }
}

impl Run<'_> {
    fn alone(&mut self, end_ps: u64) {
        while let Some(window_end_ps) = self.window(end_ps) {
            self.active.iter().for_each(|&chip| advance(&self.chips[chip], window_end_ps));
            self.exchange();
        }
    }

    fn on_threads(&mut self, end_ps: u64, threads: usize) {
        let shared = Shared::new(self.chips);
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| shared.serve())).collect();
            let mut number = 0;
            while let Some(window_end_ps) = self.window(end_ps) {
                if self.active.len() < SHARED_MIN {
                    self.active.iter().for_each(|&chip| advance(&self.chips[chip], window_end_ps));
                } else {
                    number = (number + 1) % LAST;
                    shared.open(number, &self.active, window_end_ps);
                    if shared.sleeping.load(Ordering::SeqCst) {
                        others.iter().for_each(|other| other.thread().unpark());
                    }
                    shared.work(number);
                    shared.close(number, self.active.len());
                }
                self.exchange();
            }
            shared.claims.store(LAST << 32 | INDEX, Ordering::SeqCst);
            others.iter().for_each(|other| other.thread().unpark());
        });
    }

    /// The next window: its end; `active` has the chips with something to do in it.
    fn window(&mut self, end_ps: u64) -> Option<u64> {
        if self.to_breakpoint && self.stops > 0 {
            return None;
        }
        let first_ps = self.next_ps.iter().fold(u64::MAX, |least, &next| least.min(next));
        if first_ps >= end_ps {
            return None;
        }
        let window_ps = first_ps.saturating_add(self.lookahead_ps);
        let mut second_ps = u64::MAX;
        self.active.clear();
        for (chip, &next_ps) in self.next_ps.iter().enumerate() {
            if next_ps < window_ps {
                self.active.push(chip);
            } else {
                second_ps = second_ps.min(next_ps);
            }
        }
        // Nobody can disturb an only one before the next chip wakes; what it sends itself ends its run in time.
        let alone = self.active.len() == 1;
        self.end_ps = end_ps.min(if alone { second_ps.saturating_add(self.lookahead_ps) } else { window_ps });
        Some(self.end_ps)
    }

    /// Takes what chips have sent to where it goes: chips in order, so that it does not matter who ran first.
    fn exchange(&mut self) {
        for &index in &self.active {
            let Ok(mut chip) = self.chips[index].lock() else { continue };
            self.next_ps[index] = chip.next_ps();
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

/// What the threads of a run share: the chips of a window, which they claim one by one.
///
/// A claim holds for the window whose number it carries. The values of the next window are written only while the present
/// one is closed, and a claim succeeds only while it is open: what a thread read before its claim belongs to it.
struct Shared<'a> {
    chips: &'a [Mutex<Chip>],
    active: Vec<AtomicUsize>,
    count: AtomicUsize,
    end_ps: AtomicU64,
    /// Number of the window in the upper half, next chip to be claimed in the lower; all ones there: closed.
    claims: AtomicU64,
    done: AtomicUsize,
    /// A thread has gone to sleep since it was last woken.
    sleeping: AtomicBool,
}

impl<'a> Shared<'a> {
    fn new(chips: &'a [Mutex<Chip>]) -> Self {
        Self {
            chips,
            active: chips.iter().map(|_| AtomicUsize::new(0)).collect(),
            count: AtomicUsize::new(0),
            end_ps: AtomicU64::new(0),
            claims: AtomicU64::new(INDEX),
            done: AtomicUsize::new(0),
            sleeping: AtomicBool::new(false),
        }
    }

    fn open(&self, number: u64, active: &[usize], end_ps: u64) {
        for (place, &chip) in self.active.iter().zip(active) {
            place.store(chip, Ordering::Relaxed);
        }
        self.count.store(active.len(), Ordering::Relaxed);
        self.end_ps.store(end_ps, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.claims.store(number << 32, Ordering::SeqCst);
    }

    /// Waits until all chips of the window are done.
    fn close(&self, number: u64, count: usize) {
        let mut turns = 0u32;
        while self.done.load(Ordering::Acquire) < count {
            turns += 1;
            if turns > SPINS_AT_END {
                thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        self.claims.store(number << 32 | INDEX, Ordering::SeqCst);
    }

    /// Takes chips of the window until none is left.
    fn work(&self, number: u64) {
        loop {
            let claim = self.claims.load(Ordering::SeqCst);
            let index = (claim & INDEX) as usize;
            let (count, end_ps) = (self.count.load(Ordering::Relaxed), self.end_ps.load(Ordering::Relaxed));
            if claim >> 32 != number || index >= count {
                return;
            }
            let chip = self.active[index].load(Ordering::Relaxed);
            if self.claims.compare_exchange(claim, claim + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                advance(&self.chips[chip], end_ps);
                self.done.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Works on every window until the last.
    fn serve(&self) {
        let (mut seen, mut turns) = (0, 0);
        loop {
            let claim = self.claims.load(Ordering::SeqCst);
            match claim >> 32 {
                LAST => return,
                number if number != seen && claim & INDEX != INDEX => {
                    self.work(number);
                    (seen, turns) = (number, 0);
                }
                _ if turns < SPINS => {
                    turns += 1;
                    std::hint::spin_loop();
                }
                _ => {
                    // Who opens a window after this sees the flag; who opened one before is seen here.
                    self.sleeping.store(true, Ordering::SeqCst);
                    if self.claims.load(Ordering::SeqCst) == claim {
                        thread::park();
                    }
                    self.sleeping.store(false, Ordering::SeqCst);
                    turns = 0;
                }
            }
        }
    }
}
