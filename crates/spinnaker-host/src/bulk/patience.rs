//! How long an answer is waited for.

use std::time::Duration;

/// The wait before any answer has come.
const FIRST: Duration = Duration::from_millis(100);
/// The shortest and the longest wait.
const MIN: Duration = Duration::from_millis(20);
const MAX: Duration = Duration::from_millis(500);
/// Silence for so long is the end.
const GIVE_UP_AFTER: Duration = Duration::from_millis(4500);

/// Times of answers, and when patience ends.
#[derive(Debug)]
pub(super) struct Patience {
    smoothed: Option<(Duration, Duration)>,
    /// Waits in a row that were in vain.
    vain: u32,
    since: Duration,
    heard: Duration,
}

impl Patience {
    pub fn new(now: Duration) -> Self {
        Self { smoothed: None, vain: 0, since: now, heard: now }
    }

    /// An answer has come, this long after its question if that is known.
    pub fn answered(&mut self, now: Duration, after: Option<Duration>) {
        if let Some(time) = after {
            self.smoothed = Some(match self.smoothed {
                None => (time, time / 2),
                Some((mean, deviation)) => ((mean * 7 + time) / 8, (deviation * 3 + mean.abs_diff(time)) / 4),
            });
        }
        (self.vain, self.since, self.heard) = (0, now, now);
    }

    /// When the wait ends.
    pub fn deadline(&self) -> Duration {
        let wait = self.smoothed.map_or(FIRST, |(mean, deviation)| mean + deviation * 4).clamp(MIN, MAX);
        self.since + (wait * (1 << self.vain.min(5))).min(MAX)
    }

    /// Whether the wait is over; then the next begins.
    pub fn is_over(&mut self, now: Duration) -> bool {
        let over = now >= self.deadline();
        if over {
            self.vain += 1;
            self.since = now;
        }
        over
    }

    /// For how long nothing has come, if that is too long.
    pub fn exhausted(&self, now: Duration) -> Option<Duration> {
        let silence = now.saturating_sub(self.heard);
        (silence >= GIVE_UP_AFTER).then_some(silence)
    }
}
