//! What the natively emulated monitors do to the machine: at once, since they keep account of their own time.

use std::ops::Range;

use spinnaker_machine::{ChipXy, RoutingEntry};

use super::{Simulator, kind};
use crate::core::{CoreState, SHOWN_WORDS};
use crate::sdram::sdram_word;

/// A core's program as the monitor sees it.
pub(crate) struct CoreView {
    pub state: CoreState,
    /// Starts so far, those on their way included.
    pub starts: u32,
    pub shown: [u32; SHOWN_WORDS],
    /// Which of them the program has set, as bits.
    pub shown_set: u8,
    pub log_bytes: usize,
}

impl Simulator {
    /// Lets the machine run to a time.
    pub(crate) fn run_until(&mut self, end_ns: u64) {
        self.advance(end_ns);
    }

    /// Whether nothing will happen by itself.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.queue.peek_ns().is_none()
    }

    /// Reads SDRAM from a byte address on (both views are known); false, and nothing read, if it is not there.
    pub(crate) fn peek(&self, chip: u32, address: u32, out: &mut [u8]) -> bool {
        let Some((word, first, mut words)) = span(address, out.len()) else { return false };
        self.memories.with(chip, |memory| memory.sdram.read(word, &mut words));
        for (at, byte) in (first..).zip(out) {
            *byte = words[at / 4].to_le_bytes()[at % 4];
        }
        true
    }

    /// Writes SDRAM from a byte address on; false, and nothing written, if it is not there.
    pub(crate) fn poke(&mut self, chip: u32, address: u32, data: &[u8]) -> bool {
        let Some((word, first, mut words)) = span(address, data.len()) else { return false };
        self.memories.with(chip, |memory| {
            memory.sdram.read(word, &mut words);
            for (at, byte) in (first..).zip(data) {
                let mut bytes = words[at / 4].to_le_bytes();
                bytes[at % 4] = *byte;
                words[at / 4] = u32::from_le_bytes(bytes);
            }
            memory.sdram.write(word, &words);
        });
        true
    }

    /// Words of a core's DTCM, if the core is there.
    pub(crate) fn with_dtcm<T>(&self, chip: ChipXy, core: u8, look: impl FnOnce(&mut [u32]) -> T) -> Option<T> {
        let place = self.place(chip, core)?;
        let chip = self.chip(chip).ok()?;
        Some(self.memories.with(chip, |memory| look(memory.dtcm(place))))
    }

    /// Replaces a chip's multicast table.
    pub(crate) fn set_routes(&mut self, chip: u32, entries: &[RoutingEntry]) {
        self.chips[chip as usize].router.table.load(entries);
    }

    /// Multicast packets that a chip's router had from its own cores, and from elsewhere.
    pub(crate) fn routed(&self, chip: u32) -> [u64; 2] {
        self.chips[chip as usize].router.routed
    }

    /// Hops from a chip's Ethernet chip.
    pub(crate) fn ethernet_hops(&self, chip: u32) -> u64 {
        self.chips[chip as usize].ethernet_hops
    }

    /// A core's program; `None` if it has none.
    pub(crate) fn view(&self, chip: ChipXy, core: u8) -> Option<CoreView> {
        let index = self.core(chip, core).ok()?;
        let inner = self.cores[index as usize].cell.inner.borrow();
        Some(CoreView {
            state: inner.state,
            starts: inner.starts,
            shown: inner.shown,
            shown_set: inner.shown_set,
            log_bytes: inner.log.len(),
        })
    }

    /// Part of a core's text (bytes).
    pub(crate) fn log_part(&self, chip: ChipXy, core: u8, part: Range<usize>) -> Vec<u8> {
        let Ok(index) = self.core(chip, core) else { return Vec::new() };
        let inner = self.cores[index as usize].cell.inner.borrow();
        inner.log.as_bytes().get(part).unwrap_or_default().to_vec()
    }

    /// The start signal for one core. One that is ready starts when the signal is there; for one that runs `held` says whether
    /// it will find the signal when it is ready.
    pub(crate) fn signal_start(&mut self, chip: ChipXy, core: u8, time_ns: u64, held: bool) {
        let Ok(index) = self.core(chip, core) else { return };
        let sim = &self.cores[index as usize];
        {
            let inner = &mut *sim.cell.inner.borrow_mut();
            match inner.state {
                CoreState::Ready if held => {
                    inner.state = CoreState::Running;
                    inner.start_sent = true;
                    inner.starts = inner.starts.wrapping_add(1);
                }
                CoreState::Running => {
                    inner.start_held = held;
                    return;
                }
                _ => return,
            }
        }
        self.running += 1;
        self.queue.push(time_ns.max(self.now_ns), kind::START, sim.chip);
    }

    /// Takes the program off one core. Its SDRAM stays, its data memory becomes zero.
    pub(crate) fn stop_core(&mut self, chip: ChipXy, core: u8) {
        let Some(index) = self.core_index.remove(&(chip, core)) else { return };
        if self.take_off((chip, core), index) == CoreState::Running {
            self.running -= 1;
        }
    }
}

/// The word in which an address lies, the byte within it, and room for all words that `bytes` from there on touch.
fn span(address: u32, bytes: usize) -> Option<(usize, usize, Vec<u32>)> {
    let first = address as usize % 4;
    let words = (first + bytes).div_ceil(4);
    let word = sdram_word(address & !3, words)?;
    Some((word, first, vec![0; words]))
}
