//! A chip's SDRAM: sparse memory, and how its DMA engines share the bandwidth.

use spinnaker_machine::{SDRAM_BASE, SDRAM_BYTES};

use crate::Timing;

const PAGE_WORDS: usize = 16 << 10;

/// Sparse word-granular memory; what was never written is zero.
pub(crate) struct Sdram {
    pages: Vec<Option<Box<[u32]>>>,
}

/// Word number of a byte address and whether `words` from there on exist; both views (buffered, unbuffered) are known.
pub(crate) fn sdram_word(address: u32, words: usize) -> Option<usize> {
    let offset = address.checked_sub(SDRAM_BASE)?;
    // The unbuffered view lies 256 MiB above the buffered one.
    let offset = if offset >= 0x1000_0000 { offset - 0x1000_0000 } else { offset };
    let fits = offset < SDRAM_BYTES && words <= (SDRAM_BYTES - offset) as usize / 4;
    (address.is_multiple_of(4) && fits).then_some(offset as usize / 4)
}

impl Sdram {
    pub fn new() -> Self {
        Self { pages: Vec::new() }
    }

    pub fn read(&self, mut word: usize, mut out: &mut [u32]) {
        while !out.is_empty() {
            let at = word % PAGE_WORDS;
            let (part, rest) = out.split_at_mut(out.len().min(PAGE_WORDS - at));
            match self.pages.get(word / PAGE_WORDS).and_then(Option::as_deref) {
                Some(page) => part.copy_from_slice(&page[at..at + part.len()]),
                None => part.fill(0),
            }
            word += part.len();
            out = rest;
        }
    }

    pub fn write(&mut self, mut word: usize, mut data: &[u32]) {
        while !data.is_empty() {
            let at = word % PAGE_WORDS;
            let (part, rest) = data.split_at(data.len().min(PAGE_WORDS - at));
            let number = word / PAGE_WORDS;
            if number >= self.pages.len() {
                self.pages.resize_with(number + 1, || None);
            }
            let page = self.pages[number].get_or_insert_with(|| vec![0; PAGE_WORDS].into_boxed_slice());
            page[at..at + part.len()].copy_from_slice(part);
            word += part.len();
            data = rest;
        }
    }

    /// Bytes of host memory that the content takes.
    pub fn host_bytes(&self) -> usize {
        self.pages.iter().flatten().count() * PAGE_WORDS * 4
    }
}

/// Fraction bits of a count of words. While an engine is active the time to the next end is short (a transfer has at most
/// 16,384 words), so products with times and rates stay far below 64 bits.
const FRACTION: u32 = 20;
/// Rounding leaves a transfer at most this far from its end when its time has come.
const TOLERANCE: u64 = 1 << (FRACTION - 8);

/// Processor sharing: all active engines of a chip progress at the same rate, the lower of one engine's own and an equal
/// share of the memory's. One running total of words serves all: a transfer of `w` words that starts when the total
/// is `t` ends when it is `t + w`.
pub(crate) struct Sharing {
    /// Words that an engine active all the time would have moved, fixed point.
    total: u64,
    /// Time for which `total` holds.
    at_ns: u64,
    /// Total at the end, and core, of the active engines.
    active: Vec<(u64, u32)>,
    /// Buffer for those that have ended.
    ended: Vec<(u64, u32)>,
    /// Engines that become active later: time, words, core; latest first.
    joining: Vec<(u64, u64, u32)>,
    /// Time for which an event is in the queue.
    pub timer_ns: u64,
}

impl Sharing {
    pub fn new() -> Self {
        Self { total: 0, at_ns: 0, active: Vec::new(), ended: Vec::new(), joining: Vec::new(), timer_ns: u64::MAX }
    }

    /// Quarter nanoseconds a word for each of `engines`.
    fn word_quarter_ns(engines: usize, timing: &Timing) -> u64 {
        timing.dma_word_quarter_ns.max(timing.sdram_word_quarter_ns * engines as u64)
    }

    /// An engine begins to move words at `time_ns`, now or later.
    pub fn join(&mut self, time_ns: u64, words: u64, core: u32) {
        let at = self.joining.partition_point(|join| join.0 > time_ns);
        self.joining.insert(at, (time_ns, words, core));
    }

    /// Takes the core's engine off, wherever it stands.
    pub fn leave(&mut self, core: u32) {
        self.active.retain(|engine| engine.1 != core);
        self.joining.retain(|join| join.2 != core);
    }

    /// Goes on to `time_ns`, which must not be behind the next end.
    pub fn advance(&mut self, time_ns: u64, timing: &Timing) {
        loop {
            let join = self.joining.last().copied().filter(|join| join.0 <= time_ns);
            let to = join.map_or(time_ns, |join| join.0).max(self.at_ns);
            if !self.active.is_empty() {
                let quarters = (to - self.at_ns) * 4;
                let each = Self::word_quarter_ns(self.active.len(), timing);
                self.total += (quarters << FRACTION) / each;
            }
            self.at_ns = to;
            let Some((_, words, core)) = join else { return };
            self.joining.pop();
            self.active.push((self.total + (words << FRACTION), core));
        }
    }

    /// Takes the cores out whose transfers have ended, in order of their ends.
    pub fn finished(&mut self, out: &mut Vec<u32>) {
        out.clear();
        let limit = self.total + TOLERANCE;
        // Ends are rarely more than one at a time: sort those that are.
        self.ended.clear();
        let mut i = 0;
        while i < self.active.len() {
            if self.active[i].0 <= limit {
                self.ended.push(self.active.swap_remove(i));
            } else {
                i += 1;
            }
        }
        self.ended.sort_unstable();
        out.extend(self.ended.iter().map(|engine| engine.1));
    }

    /// When the next transfer ends if no other is added.
    pub fn next_end_ns(&self, timing: &Timing) -> Option<u64> {
        let mut least = self.active.iter().map(|engine| engine.0).min();
        let (mut at, mut total, mut engines) = (self.at_ns, self.total, self.active.len());
        let mut joins = self.joining.iter().rev();
        loop {
            let join = joins.next();
            let mut progress = 0;
            let each = Self::word_quarter_ns(engines, timing);
            if let Some(least) = least {
                let end = at + (least.saturating_sub(total) * each).div_ceil(4 << FRACTION);
                match join {
                    Some(join) if join.0 < end => {
                        progress = ((join.0.saturating_sub(at) * 4) << FRACTION) / each;
                    }
                    _ => return Some(end),
                }
            }
            let &(time, words, _) = join?;
            at = at.max(time);
            total += progress;
            engines += 1;
            let end = total + (words << FRACTION);
            least = Some(least.map_or(end, |least| least.min(end)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_sparse_and_zero() {
        let mut sdram = Sdram::new();
        sdram.write(PAGE_WORDS - 2, &[1, 2, 3, 4]);
        let mut out = [9; 6];
        sdram.read(PAGE_WORDS - 3, &mut out);
        assert_eq!(out, [0, 1, 2, 3, 4, 0]);
        sdram.read(1 << 24, &mut out);
        assert_eq!(out, [0; 6]);
        assert_eq!(sdram.host_bytes(), 2 * PAGE_WORDS * 4);
    }

    #[test]
    fn addresses_are_those_of_a_core() {
        assert_eq!(sdram_word(0x6000_0004, 1), Some(1));
        assert_eq!(sdram_word(0x7000_0004, 1), Some(1));
        assert_eq!(sdram_word(0x67FF_FFFC, 1), Some((SDRAM_BYTES / 4 - 1) as usize));
        for (address, words) in [(0x67FF_FFFC, 2), (0x6800_0000, 1), (0x5FFF_FFFC, 1), (0, 1), (0x6000_0002, 1)] {
            assert_eq!(sdram_word(address, words), None, "{address:#x}");
        }
    }

    /// Ends of transfers (start, words), all joined before time goes on.
    fn ends(transfers: &[(u64, u64)]) -> Vec<u64> {
        let timing = Timing::default();
        let mut sharing = Sharing::new();
        for (core, &(time, words)) in transfers.iter().enumerate() {
            sharing.join(time, words, core as u32);
        }
        let mut ends = vec![0; transfers.len()];
        let mut out = Vec::new();
        while let Some(time) = sharing.next_end_ns(&timing) {
            sharing.advance(time, &timing);
            sharing.finished(&mut out);
            assert!(!out.is_empty(), "an end was announced for {time}");
            for &core in &out {
                ends[core as usize] = time;
            }
        }
        ends
    }

    #[test]
    fn one_engine_has_its_own_rate_and_many_share() {
        assert_eq!(ends(&[(0, 1000)]), [15_000]);
        assert_eq!(ends(&[(0, 1000), (0, 1000)]), [15_000, 15_000]);
        assert_eq!(ends(&[(0, 1000); 4]), [25_000; 4]);
        assert_eq!(ends(&[(0, 1000); 16]), [100_000; 16]);
        // 16 engines share for the first 100 words of each, then the one that is left runs alone.
        let mut transfers = vec![(0, 100); 15];
        transfers.push((0, 200));
        let ends = ends(&transfers);
        assert_eq!(ends[..15], [10_000; 15]);
        assert_eq!(ends[15], 10_000 + 1500);
    }

    #[test]
    fn late_comers_slow_the_others_from_then_on() {
        // Two alone for 15 us at 15 ns a word; from then on four at 25.
        let ends = ends(&[(0, 2000), (0, 2000), (15_000, 1000), (15_000, 1000)]);
        assert_eq!(ends, [40_000; 4]);
    }
}
