//! The on-core runtime on the virtual machine: [`spidnn_core::Core`] over a simulated core.
//!
//! The runtime's source is the one that the firmware has; here it is polled by the simulation at host speed, and each
//! kernel charges the cycles of its cost model. Kernels are jobs that other host threads may execute.

use std::cell::Cell;

use spidnn_core::pages::{self, Page, Shelf};
use spidnn_core::{Arrival, Core, Counter, Direction, Transfer};
use spidnn_kernels::KernelCall;
use spinnaker_machine::SDRAM_USER_BASE;
use spinnaker_sim::{COUNTER_RESENT, CoreHandle, Words};

/// The simulation's counter for packets that nobody was waiting for.
pub(crate) const COUNTER_UNEXPECTED: usize = 1;

/// Tag of the transfers that bring pages: no command list uses it.
const TAG_PAGE: u8 = 13;

/// Cycles from a core's start signal to its program, beyond what the runtime charges: its state shown, the run block and the first segment looked at
/// (measured: an empty run takes 1,790 cycles on the firmware, and 17 cores together 2,380).
const START_CYCLES: u64 = 1520;
/// Cycles of the loop that sends words, for each; and, where they are spaced, beyond the spacing: until the router has taken a word and that is seen.
const WORD_CYCLES: u32 = 30;
const SPACED_CYCLES: u32 = 65;
/// Cycles to see whether the page of a kernel is there, when it is checked and when it runs.
const PAGE_CYCLES: u64 = 100;

/// User words of a core's block in which the firmware counts, and so do these cores: packets sent again, packets that nobody
/// waited for, cycles of the last run.
pub(crate) const USER_RESENT: usize = 0;
pub(crate) const USER_UNEXPECTED: usize = 1;
pub(crate) const USER_RUN_CYCLES: usize = 2;

/// A simulated core as the runtime sees it.
pub struct NativeCore {
    handle: CoreHandle,
    shelf: Cell<Shelf>,
    /// When the run began that is under way.
    run_began: Cell<Option<u64>>,
    /// Packets sent again and packets unexpected, as the user words show them.
    counts: [Cell<u32>; 2],
}

impl NativeCore {
    /// Wraps a core of a simulation, whose firmware has pages of so many bytes: they take the time that they take on a machine.
    pub fn new(core: CoreHandle, page_bytes: [u32; pages::COUNT]) -> NativeCore {
        let shelf = Cell::new(Shelf::new(page_bytes));
        NativeCore { handle: core, shelf, run_began: Cell::new(None), counts: Default::default() }
    }
}

impl Core for NativeCore {
    type Words = Words;
    type Segment = Vec<u32>;

    fn now_cycles(&self) -> u64 {
        self.handle.now_cycles()
    }

    fn charge(&self, cycles: u32) {
        self.handle.charge(cycles.into());
    }

    fn read(&self, dtcm: u32, out: &mut [u32]) {
        self.handle.read(dtcm, out);
    }

    fn segment(&self, dtcm: u32, words: u32) -> Vec<u32> {
        let mut segment = vec![0; words as usize];
        self.read(dtcm, &mut segment);
        segment
    }

    fn write(&self, dtcm: u32, words: &[u32]) {
        self.handle.write(dtcm, words);
    }

    async fn dma(&self, t: Transfer) {
        let direction = match t.direction {
            Direction::In => spinnaker_sim::Direction::In,
            Direction::Out => spinnaker_sim::Direction::Out,
        };
        let transfer = spinnaker_sim::Transfer {
            direction,
            sdram: t.sdram,
            dtcm: t.dtcm,
            row_bytes: t.row_bytes,
            rows: t.rows,
            sdram_stride: t.sdram_stride,
            dtcm_stride: t.dtcm_stride,
            tag: t.tag,
        };
        self.handle.dma(transfer).await;
        self.handle.charge(spidnn_core::SUBMITTED_CYCLES.into());
    }

    async fn dma_done(&self, tag: u8) {
        self.handle.dma_done(tag).await;
    }

    async fn code(&self, page: Page) {
        let mut shelf = self.shelf.get();
        let Some(bytes) = shelf.need(page) else { return };
        self.shelf.set(shelf);
        let transfer = spinnaker_sim::Transfer {
            direction: spinnaker_sim::Direction::Code,
            sdram: SDRAM_USER_BASE,
            dtcm: 0,
            row_bytes: bytes,
            rows: 1,
            sdram_stride: bytes,
            dtcm_stride: bytes,
            tag: TAG_PAGE,
        };
        self.handle.dma(transfer).await;
        self.handle.dma_done(TAG_PAGE).await;
    }

    async fn kernel(&self, call: &KernelCall) {
        // The kernel's own page checks the call, another may run it.
        for page in [pages::of(call.number()), pages::apart_of(call)].into_iter().flatten() {
            if self.shelf.get().lengths[page as usize] > 0 {
                self.handle.charge(PAGE_CYCLES);
            }
            self.code(page).await;
        }
        let call = *call;
        self.handle.compute(call.cycles(), move |dtcm| call.run(dtcm)).await;
    }

    async fn send(&self, key: u32, payload: Option<u32>) {
        self.handle.send(key, payload).await;
    }

    async fn send_words(&self, key: u32, dtcm: u32, count: u32, spacing_cycles: u32) {
        let cycles = if spacing_cycles == 0 { WORD_CYCLES } else { spacing_cycles + SPACED_CYCLES };
        self.handle.send_words_spaced(key, dtcm, count, cycles).await;
    }

    fn take(&self) -> Option<Arrival<Words>> {
        self.handle.take().map(|a| Arrival { key: a.key, words: a.words })
    }

    async fn event(&self, deadline: Option<u64>) {
        self.handle.event(deadline).await;
    }

    async fn wait_start(&self) -> bool {
        if let Some(began) = self.run_began.take() {
            self.handle.show(USER_RUN_CYCLES, (self.now_cycles() - began) as u32);
        }
        let started = self.handle.wait_start().await;
        if started {
            self.run_began.set(Some(self.now_cycles()));
            self.handle.charge(START_CYCLES);
        }
        started
    }

    fn fail(&self, code: u32, detail: [u32; 2]) {
        self.handle.fail(code, detail);
    }

    fn count(&self, counter: Counter, n: u32) {
        let (number, word) = match counter {
            Counter::PacketsResent => (COUNTER_RESENT, USER_RESENT),
            Counter::PacketsUnexpected => (COUNTER_UNEXPECTED, USER_UNEXPECTED),
        };
        self.handle.count(number, n.into());
        let count = &self.counts[word];
        count.set(count.get().wrapping_add(n));
        self.handle.show(word, count.get());
    }

    fn log(&self, text: &str) {
        self.handle.log(text);
    }
}
