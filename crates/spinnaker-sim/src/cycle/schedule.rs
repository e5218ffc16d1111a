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
        while let Some((window_end_ps, active)) = self.window(end_ps) {
            for &chip in &active {
                if let Ok(chip) = self.chips[chip].get_mut() {
                    chip.advance(window_end_ps);
                }
            }
            self.exchange(&active);
        }
        self.now_ps = self.now_ps.max(end_ps);
    }

    /// The next window: its end, and the chips that have something to do in it.
    fn window(&self, end_ps: u64) -> Option<(u64, Vec<usize>)> {
        let first_ps = self.next_ps.iter().copied().min().filter(|&first| first < end_ps)?;
        let window_ps = first_ps.saturating_add(self.lookahead_ps);
        let active: Vec<usize> = (0..self.next_ps.len()).filter(|&chip| self.next_ps[chip] < window_ps).collect();
        if let [only] = active[..] {
            // Nobody can disturb it before the next chip wakes; what it sends itself ends its run in time.
            let others = self.next_ps.iter().enumerate().filter(|&(chip, _)| chip != only);
            let second_ps = others.map(|(_, &next)| next).min().unwrap_or(u64::MAX);
            return Some((end_ps.min(second_ps.saturating_add(self.lookahead_ps)), active));
        }
        Some((end_ps.min(window_ps), active))
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
