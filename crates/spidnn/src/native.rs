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

/// A simulated core as the runtime sees it.
pub struct NativeCore(CoreHandle, Cell<Shelf>);

impl NativeCore {
    /// Wraps a core of a simulation, whose firmware has pages of so many bytes: they take the time that they take on a machine.
    pub fn new(core: CoreHandle, page_bytes: [u32; pages::COUNT]) -> NativeCore {
        NativeCore(core, Cell::new(Shelf::new(page_bytes)))
    }
}

impl Core for NativeCore {
    type Words = Words;
    type Segment = Vec<u32>;

    fn now_cycles(&self) -> u64 {
        self.0.now_cycles()
    }

    fn charge(&self, cycles: u32) {
        self.0.charge(cycles.into());
    }

    fn read(&self, dtcm: u32, out: &mut [u32]) {
        self.0.read(dtcm, out);
    }

    fn segment(&self, dtcm: u32, words: u32) -> Vec<u32> {
        let mut segment = vec![0; words as usize];
        self.read(dtcm, &mut segment);
        segment
    }

    fn write(&self, dtcm: u32, words: &[u32]) {
        self.0.write(dtcm, words);
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
        self.0.dma(transfer).await;
    }

    async fn dma_done(&self, tag: u8) {
        self.0.dma_done(tag).await;
    }

    async fn code(&self, page: Page) {
        let mut shelf = self.1.get();
        let Some(bytes) = shelf.need(page) else { return };
        self.1.set(shelf);
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
        self.0.dma(transfer).await;
        self.0.dma_done(TAG_PAGE).await;
    }

    async fn kernel(&self, call: &KernelCall) {
        // The kernel's own page checks the call, another may run it.
        for page in [pages::of(call.number()), pages::apart_of(call)].into_iter().flatten() {
            self.code(page).await;
        }
        let call = *call;
        self.0.compute(call.cycles(), move |dtcm| call.run(dtcm)).await;
    }

    async fn send(&self, key: u32, payload: Option<u32>) {
        self.0.send(key, payload).await;
    }

    async fn send_words(&self, key: u32, dtcm: u32, count: u32) {
        self.0.send_words(key, dtcm, count).await;
    }

    fn take(&self) -> Option<Arrival<Words>> {
        self.0.take().map(|a| Arrival { key: a.key, words: a.words })
    }

    async fn event(&self, deadline: Option<u64>) {
        self.0.event(deadline).await;
    }

    async fn wait_start(&self) -> bool {
        self.0.wait_start().await
    }

    fn fail(&self, code: u32, detail: [u32; 2]) {
        self.0.fail(code, detail);
    }

    fn count(&self, counter: Counter, n: u32) {
        let number = match counter {
            Counter::PacketsResent => COUNTER_RESENT,
            Counter::PacketsUnexpected => COUNTER_UNEXPECTED,
        };
        self.0.count(number, n.into());
    }

    fn log(&self, text: &str) {
        self.0.log(text);
    }
}
