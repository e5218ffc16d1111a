//! Windows of time: which chips run, how far, on which threads; and what goes from chip to chip between windows.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::CycleMachine;
use crate::chip::Chip;

/// Chips that must have something to do in a window before another thread is asked: handing over costs more than it
/// saves below that.
const SHARED_MIN: usize = 6;

/// What the threads of a run share.
struct Shared<'a> {
    chips: &'a [Mutex<Chip>],
    /// Chips of the window, by index.
    active: Vec<AtomicUsize>,
    count: AtomicUsize,
    end_ps: AtomicU64,
    /// The next of them to be taken, and how many are done.
    claimed: AtomicUsize,
    done: AtomicUsize,
    /// Number of the window; [`u64::MAX`] is the end.
    window: AtomicU64,
}

impl Shared<'_> {
    /// Takes chips of the window until none is left.
    fn work(&self, end_ps: u64, count: usize) {
        loop {
            let i = self.claimed.fetch_add(1, Ordering::AcqRel);
            if i >= count {
                return;
            }
            let index = self.active[i].load(Ordering::Acquire);
            if let Ok(mut chip) = self.chips[index].lock() {
                chip.advance(end_ps);
            }
            self.done.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl CycleMachine {
    pub(super) fn run_until_ps(&mut self, end_ps: u64) {
        let mut active = std::mem::take(&mut self.active);
        while let Some(window_end_ps) = self.window(end_ps, &mut active) {
            for &chip in &active {
                if let Ok(chip) = self.chips[chip].get_mut() {
                    chip.advance(window_end_ps);
                }
            }
            self.exchange(&active);
        }
        self.active = active;
        self.now_ps = self.now_ps.max(end_ps);
    }

    /// The next window: its end, and the chips that have something to do in it.
    fn window(&self, end_ps: u64, active: &mut Vec<usize>) -> Option<u64> {
        let first_ps = self.next_ps.iter().fold(u64::MAX, |least, &next| least.min(next));
        if first_ps >= end_ps {
            return None;
        }
        let window_ps = first_ps.saturating_add(self.lookahead_ps);
        let mut second_ps = u64::MAX;
        active.clear();
        for (chip, &next_ps) in self.next_ps.iter().enumerate() {
            if next_ps < window_ps {
                active.push(chip);
            } else {
                second_ps = second_ps.min(next_ps);
            }
        }
        if active.len() > 1 {
            return Some(end_ps.min(window_ps));
        }
        // Nobody can disturb the only one before the next chip wakes; what it sends itself ends its run in time.
        Some(end_ps.min(second_ps.saturating_add(self.lookahead_ps)))
    }

    /// Takes what chips have sent to where it goes.
    fn exchange(&mut self, active: &[usize]) {
        for &index in active {
            let Ok(chip) = self.chips[index].get_mut() else { continue };
            self.next_ps[index] = chip.next_ps();
            chip.noc.outbox_ps = u64::MAX;
            let messages = std::mem::take(&mut chip.noc.outbox);
            let frames = std::mem::take(&mut chip.noc.frames_out);
            for &message in &messages {
                let to = message.chip as usize;
                if let Ok(chip) = self.chips[to].get_mut() {
                    chip.deliver(message);
                    self.next_ps[to] = chip.next_ps();
                }
            }
            for (time_ps, frame) in frames {
                let answer = self.host.take(index as u32, self.places[index], time_ps, frame);
                if let (Some((time_ps, frame)), Ok(chip)) = (answer, self.chips[index].get_mut()) {
                    chip.deliver_frame(time_ps, frame);
                    self.next_ps[index] = chip.next_ps();
                }
            }
            // Keep the buffer.
            if let Ok(chip) = self.chips[index].get_mut() {
                chip.noc.outbox = messages;
                chip.noc.outbox.clear();
            }
        }
    }
}
