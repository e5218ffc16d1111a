//! Cores: when their programs go on, and what becomes of what they ask for.

use std::task::{Context, Waker};

use super::{Queued, SEND_AHEAD_NS, Simulator, kind};
use crate::core::{CoreState, Request, wait};
use crate::memory::Op;
use crate::packet::{LOCAL, Train};

impl Simulator {
    /// Makes sure that the core is looked at no later than at a time.
    pub(super) fn wake_at(&mut self, core: u32, time_ns: u64) {
        let sim = &mut self.cores[core as usize];
        if time_ns < sim.timer_ns {
            sim.later_ns = sim.later_ns.min(sim.timer_ns);
            sim.timer_ns = time_ns;
            self.queue.push(time_ns, kind::CORE, core);
        }
    }

    pub(super) fn core_timer(&mut self, core: u32) {
        let sim = &mut self.cores[core as usize];
        if sim.timer_ns != self.now_ns {
            return;
        }
        sim.timer_ns = std::mem::replace(&mut sim.later_ns, u64::MAX);
        let (wake_ns, first) = {
            let inner = &mut *sim.cell.inner.borrow_mut();
            let first = inner.waits == 0 && inner.wake_ns == u64::MAX;
            if inner.debt_ns > 0 && inner.wake_ns <= self.now_ns {
                // Interrupts took time from what is just over.
                inner.local_ns = inner.local_ns.max(self.now_ns) + inner.debt_ns;
                inner.debt_ns = 0;
                inner.wake_ns = inner.local_ns;
            }
            (inner.wake_ns, first)
        };
        if wake_ns <= self.now_ns || first {
            self.poll(core);
        } else if wake_ns != u64::MAX {
            self.wake_at(core, wake_ns);
        }
    }

    /// Something that the core may wait for has happened.
    pub(super) fn fire(&mut self, core: u32, what: u8) {
        let free_ns = {
            let inner = &mut *self.cores[core as usize].cell.inner.borrow_mut();
            if inner.waits & what == 0 {
                return;
            }
            let free_ns = inner.local_ns + inner.debt_ns;
            if free_ns > self.now_ns {
                inner.wake_ns = inner.wake_ns.min(free_ns);
            }
            free_ns
        };
        if free_ns > self.now_ns { self.wake_at(core, free_ns) } else { self.poll(core) }
    }

    /// Lets the program go on as far as it can, and does what it asks for.
    fn poll(&mut self, core: u32) {
        let now_ns = self.now_ns;
        let sim = &mut self.cores[core as usize];
        let Some(program) = sim.program.as_mut() else { return };
        let was_running = {
            let inner = &mut *sim.cell.inner.borrow_mut();
            inner.now_ns = now_ns;
            inner.local_ns = inner.local_ns.max(now_ns) + inner.debt_ns;
            inner.debt_ns = 0;
            inner.waits = 0;
            inner.wake_ns = u64::MAX;
            inner.state == CoreState::Running
        };
        let ended = program.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let mut requests = std::mem::take(&mut self.requests);
        let (state, wake_ns) = {
            let inner = &mut *sim.cell.inner.borrow_mut();
            std::mem::swap(&mut requests, &mut inner.requests);
            if ended && inner.state == CoreState::Running {
                inner.state = CoreState::Exited;
            }
            (inner.state, inner.wake_ns)
        };
        match state {
            CoreState::Running => {}
            CoreState::Failed { .. } => {
                sim.program = None;
                self.running -= usize::from(was_running);
                self.failed_ns = Some(self.failed_ns.unwrap_or(now_ns));
            }
            _ => {
                if ended {
                    sim.program = None;
                }
                // A ready core that a packet woke was counted when it became ready.
                if was_running {
                    self.running -= 1;
                    self.ready_ns = self.ready_ns.max(now_ns);
                }
            }
        }
        self.note(u64::from(core) << 8);
        if wake_ns != u64::MAX {
            self.wake_at(core, wake_ns.max(now_ns));
        }
        for request in requests.drain(..) {
            match request {
                Request::Dma(transfer, time_ns) => self.dma_submit(core, Queued { transfer, time_ns, rows_ended: 0 }),
                Request::Send { key, words, count, time_ns, spacing_ns } => {
                    let tail_ns = time_ns + spacing_ns * u64::from(count - 1);
                    let chip = self.cores[core as usize].chip;
                    let train = Train { key, count, words, head_ns: time_ns, tail_ns, chip, from: LOCAL, cores: core };
                    if time_ns > now_ns + SEND_AHEAD_NS {
                        self.push_train(train, time_ns, kind::SEND);
                    } else {
                        self.inject(train);
                    }
                }
            }
        }
        self.requests = requests;
    }

    pub(super) fn start(&mut self, chip: u32) {
        for number in 0..18 {
            let core = self.chips[chip as usize].cores[number];
            if core != u32::MAX {
                let sent = {
                    let inner = &mut *self.cores[core as usize].cell.inner.borrow_mut();
                    inner.started |= inner.start_sent;
                    inner.start_sent
                };
                if sent {
                    self.fire(core, wait::START);
                }
            }
        }
    }

    pub(super) fn kill(&mut self, core: u32) {
        let sim = &mut self.cores[core as usize];
        {
            let inner = &mut *sim.cell.inner.borrow_mut();
            match inner.state {
                CoreState::Running => self.running -= 1,
                CoreState::Ready => {}
                _ => return,
            }
            inner.state = CoreState::Dead;
            inner.waits = 0;
        }
        self.failed_ns = Some(self.failed_ns.unwrap_or(self.now_ns));
        self.note(u64::from(core) << 8 | 1);
        self.halt(core);
    }

    /// The program and its transfers are no more. (A job under way ends in its own time.)
    pub(super) fn halt(&mut self, core: u32) {
        let sim = &mut self.cores[core as usize];
        sim.program = None;
        (sim.active, sim.waiting) = (None, None);
        sim.cell.note(Op::Forget);
        let sharing = &mut self.chips[sim.chip as usize].sharing;
        sharing.advance(self.now_ns, &self.config.timing);
        sharing.leave(core);
        let chip = sim.chip;
        self.dma_schedule(chip);
    }
}
