//! DMA: transfers of the cores' controllers through the chip's memory.

use super::{Queued, Simulator, kind};
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

    /// The core's active transfer begins.
    fn dma_begin(&mut self, core: u32, not_before_ns: u64) {
        let sim = &self.cores[core as usize];
        let Some(queued) = &sim.active else { return };
        let timing = &self.config.timing;
        let word_quarter_ns = timing.sdram_word_quarter_ns;
        let sharing = &mut self.chips[sim.chip as usize].sharing;
        let (rows, words) = (queued.transfer.hardware_transfers(), queued.transfer.words());
        let word_ns = timing.dma_word_quarter_ns.max(word_quarter_ns * (1 + sharing.engines()));
        let row_ns = words / rows.max(1) * word_ns / 4;
        let wait_ns = rows.saturating_sub(1) * timing.dma_row_ns.saturating_sub(row_ns);
        let time_ns = queued.time_ns.max(not_before_ns) + rows.min(1) * timing.dma_setup_ns + wait_ns;
        sharing.join(time_ns, queued.transfer.words(), core, word_quarter_ns);
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
        for &core in &finished {
            self.dma_end(core);
        }
        self.dma_schedule(chip);
        for &core in &finished {
            self.fire(core, wait::DMA);
        }
        self.finished = finished;
    }

    fn dma_end(&mut self, core: u32) {
        let sim = &mut self.cores[core as usize];
        let Some(queued) = sim.active.take() else { return };
        sim.active = sim.waiting.take();
        let transfer = queued.transfer;
        let bytes = transfer.words() * 4;
        match transfer.direction {
            Direction::In => sim.cell.note(Op::In(transfer)),
            Direction::Out => sim.cell.note(Op::Out(transfer)),
            Direction::Code => {}
        }
        {
            let inner = &mut *sim.cell.inner.borrow_mut();
            inner.dma_queued -= 1;
            inner.tag_queued[usize::from(transfer.tag)] -= 1;
            let cycles = self.config.timing.dma_interrupt_cycles * transfer.hardware_transfers();
            inner.interrupt(self.now_ns, cycles);
        }
        self.counters.dma_bytes += bytes;
        self.note(u64::from(core) << 8 | 2);
        self.dma_begin(core, self.now_ns);
    }
}
