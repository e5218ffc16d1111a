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

/// A transfer that moves words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Engine {
    /// Total at its end.
    end: u64,
    core: u32,
    /// Memory time of each of its words, quarter nanoseconds.
    word_quarter_ns: u64,
}

/// A transfer that begins later.
#[derive(Debug, Clone, Copy)]
struct Joining {
    time_ns: u64,
    words: u64,
    core: u32,
    word_quarter_ns: u64,
}

/// Processor sharing: all active engines of a chip progress at the same rate, the lower of one engine's own and that at
/// which the memory has time for a word of each. One running total of words serves all: a transfer of `w` words that starts when the total
/// is `t` ends when it is `t + w`.
pub(crate) struct Sharing {
    /// Words that an engine active all the time would have moved, fixed point.
    total: u64,
    /// Time for which `total` holds.
    at_ns: u64,
    active: Vec<Engine>,
    /// Buffer for those that have ended.
    ended: Vec<Engine>,
    /// Engines that become active later, latest first.
    joining: Vec<Joining>,
    /// Time for which an event is in the queue.
    pub timer_ns: u64,
}

impl Sharing {
    pub fn new() -> Self {
        Self { total: 0, at_ns: 0, active: Vec::new(), ended: Vec::new(), joining: Vec::new(), timer_ns: u64::MAX }
    }

    /// Memory time of a word of each active engine, quarter nanoseconds.
    fn memory_quarter_ns(&self) -> u64 {
        self.active.iter().map(|engine| engine.word_quarter_ns).sum()
    }

    /// An engine begins to move words at `time_ns`, now or later. Each takes so much of the memory's time.
    pub fn join(&mut self, time_ns: u64, words: u64, core: u32, word_quarter_ns: u64) {
        let at = self.joining.partition_point(|join| join.time_ns > time_ns);
        self.joining.insert(at, Joining { time_ns, words, core, word_quarter_ns });
    }

    /// Takes the core's engine off, wherever it stands.
    pub fn leave(&mut self, core: u32) {
        self.active.retain(|engine| engine.core != core);
        self.joining.retain(|join| join.core != core);
    }

    /// Goes on to `time_ns`, which must not be behind the next end.
    pub fn advance(&mut self, time_ns: u64, timing: &Timing) {
        loop {
            let join = self.joining.last().copied().filter(|join| join.time_ns <= time_ns);
            let to = join.map_or(time_ns, |join| join.time_ns).max(self.at_ns);
            if !self.active.is_empty() {
                let quarters = (to - self.at_ns) * 4;
                let each = timing.dma_word_quarter_ns.max(self.memory_quarter_ns());
                self.total += (quarters << FRACTION) / each;
            }
            self.at_ns = to;
            let Some(Joining { words, core, word_quarter_ns, .. }) = join else { return };
            self.joining.pop();
            self.active.push(Engine { end: self.total + (words << FRACTION), core, word_quarter_ns });
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
            if self.active[i].end <= limit {
                self.ended.push(self.active.swap_remove(i));
            } else {
                i += 1;
            }
        }
        self.ended.sort_unstable();
        out.extend(self.ended.iter().map(|engine| engine.core));
    }

    /// When the next transfer ends if no other is added.
    pub fn next_end_ns(&self, timing: &Timing) -> Option<u64> {
        let mut least = self.active.iter().map(|engine| engine.end).min();
        let (mut at, mut total, mut memory) = (self.at_ns, self.total, self.memory_quarter_ns());
        let mut joins = self.joining.iter().rev();
        loop {
            let join = joins.next();
            let mut progress = 0;
            let each = timing.dma_word_quarter_ns.max(memory);
            if let Some(least) = least {
                let end = at + (least.saturating_sub(total) * each).div_ceil(4 << FRACTION);
                match join {
                    Some(join) if join.time_ns < end => {
                        progress = ((join.time_ns.saturating_sub(at) * 4) << FRACTION) / each;
                    }
                    _ => return Some(end),
                }
            }
            let &Joining { time_ns, words, word_quarter_ns, .. } = join?;
            at = at.max(time_ns);
            total += progress;
            memory += word_quarter_ns;
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
            sharing.join(time, words, core as u32, timing.sdram_word_quarter_ns);
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

    #[test]
    fn words_may_take_more_of_the_memorys_time() {
        let timing = Timing::default();
        let mut sharing = Sharing::new();
        // Four at 6.25 ns and four at 10: a word of each in 65 ns.
        for core in 0..8 {
            sharing.join(0, 1000, core, if core < 4 { 25 } else { 40 });
        }
        assert_eq!(sharing.next_end_ns(&timing), Some(65_000));
        sharing.advance(65_000, &timing);
        let mut out = Vec::new();
        sharing.finished(&mut out);
        assert_eq!(out.len(), 8);
    }
}
