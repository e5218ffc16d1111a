//! DMA: transfers of the cores' controllers through the chip's memory.
//!
//! Each row is a transfer of its own, as in the hardware: it takes the fixed latency and its share of the memory, and its end interrupts the
//! core, whose handler gives the controller the next row but one. So short rows take the time of the handler, and rows of many cores that wait
//! for the memory take their latency besides.

use super::{Queued, Simulator, kind};
use crate::CYCLE_NS;
use crate::core::{Direction, wait};
use crate::memory::Op;

impl Simulator {
    pub(super) fn dma_submit(&mut self, core: u32, queued: Queued) {
        let sim = &mut self.cores[core as usize];
        if sim.program.is_none() {
            return;
        }
        if sim.active.is_some() {
            debug_assert!(sim.waiting.is_none(), "a core submits no more than two");
            sim.waiting = Some(queued);
        } else {
            sim.active = Some(queued);
            let chip = sim.chip;
            self.dma_begin(core, self.now_ns);
            self.dma_schedule(chip);
        }
    }

    /// The next row of the core's active transfer begins: not before the one before it has ended, the transfer was submitted, and the controller
    /// was given the row, which has room for two.
    fn dma_begin(&mut self, core: u32, not_before_ns: u64) {
        let sim = &self.cores[core as usize];
        let Some(queued) = &sim.active else { return };
        let timing = &self.config.timing;
        let word_quarter_ns = match queued.transfer.direction {
            Direction::In | Direction::Code => timing.sdram_word_quarter_ns,
            Direction::Out => timing.sdram_write_word_quarter_ns,
        };
        let rows = queued.transfer.hardware_transfers();
        let words = queued.transfer.words() / rows.max(1);
        let begin_ns = queued.time_ns.max(not_before_ns).max(sim.row_given_ns);
        let time_ns = begin_ns + rows.min(1) * timing.dma_setup_ns;
        self.chips[sim.chip as usize].sharing.join(time_ns, words, core, word_quarter_ns);
    }

    pub(super) fn dma_schedule(&mut self, chip: u32) {
        let sharing = &mut self.chips[chip as usize].sharing;
        if let Some(end_ns) = sharing.next_end_ns(&self.config.timing) {
            let end_ns = end_ns.max(self.now_ns);
            if end_ns < sharing.timer_ns {
                sharing.timer_ns = end_ns;
                self.queue.push(end_ns, kind::DMA, chip);
            }
        }
    }

    pub(super) fn dma_timer(&mut self, chip: u32) {
        let now_ns = self.now_ns;
        let sharing = &mut self.chips[chip as usize].sharing;
        if sharing.timer_ns != now_ns {
            return;
        }
        sharing.timer_ns = u64::MAX;
        sharing.advance(now_ns, &self.config.timing);
        let mut finished = std::mem::take(&mut self.finished);
        sharing.finished(&mut finished);
        let mut ended = 0;
        for i in 0..finished.len() {
            let core = finished[i];
            if self.dma_row_end(core) {
                finished[ended] = core;
                ended += 1;
            }
        }
        self.dma_schedule(chip);
        for &core in &finished[..ended] {
            self.fire(core, wait::DMA);
        }
        self.finished = finished;
    }

    /// A row of the core's active transfer has ended; whether it was the last one.
    fn dma_row_end(&mut self, core: u32) -> bool {
        let sim = &mut self.cores[core as usize];
        let Some(queued) = &mut sim.active else { return false };
        let rows = queued.transfer.hardware_transfers();
        queued.rows_ended += 1;
        let last = queued.rows_ended >= rows;
        // The handler gives the controller the next row but one; the next one it has from the handler before.
        let cycles = self.config.timing.dma_interrupt_cycles * rows.min(1);
        sim.row_given_ns = sim.row_handled_ns;
        sim.row_handled_ns = sim.row_handled_ns.max(self.now_ns) + cycles * CYCLE_NS;
        let wake_cycles = if last { self.config.timing.dma_wake_cycles } else { 0 };
        sim.cell.inner.borrow_mut().interrupt_waking(self.now_ns, cycles, wake_cycles);
        if last {
            self.dma_end(core);
        }
        self.dma_begin(core, self.now_ns);
        last
    }

    fn dma_end(&mut self, core: u32) {
        let sim = &mut self.cores[core as usize];
        let Some(queued) = sim.active.take() else { return };
        sim.active = sim.waiting.take();
        let transfer = queued.transfer;
        match transfer.direction {
            Direction::In => sim.cell.note(Op::In(transfer)),
            Direction::Out => sim.cell.note(Op::Out(transfer)),
            Direction::Code => {}
        }
        {
            let inner = &mut *sim.cell.inner.borrow_mut();
            inner.dma_queued -= 1;
            inner.tag_queued[usize::from(transfer.tag)] -= 1;
        }
        self.counters.dma_bytes += transfer.words() * 4;
        self.note(u64::from(core) << 8 | 2);
    }
}
