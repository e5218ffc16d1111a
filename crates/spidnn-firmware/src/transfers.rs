//! DMA transfers of rows, as the runtime asks for them, on a controller that takes one row at a time and queues one more.

use spidnn_core::{Direction, Transfer};

use crate::device::dma;
use crate::global::Global;
use crate::interrupt;

/// Transfers that may be under way.
const JOBS: usize = 2;
/// Tags of transfers are below this.
const TAGS: usize = 16;
/// Data memory in the core's own address space.
pub const DTCM: u32 = 0x0040_0000;

#[derive(Clone, Copy)]
struct Job {
    out: bool,
    sdram: u32,
    dtcm: u32,
    row_bytes: u32,
    sdram_stride: u32,
    dtcm_stride: u32,
    /// Rows that the controller has not been given, and rows that have not ended.
    to_submit: u32,
    to_end: u32,
    tag: u8,
}

struct Queue {
    jobs: [Job; JOBS],
    /// The oldest job, and how many there are.
    first: usize,
    count: usize,
    /// Rows that the controller holds.
    held: u32,
    tags: [u8; TAGS],
}

const NO_JOB: Job = Job {
    out: false,
    sdram: 0,
    dtcm: 0,
    row_bytes: 0,
    sdram_stride: 0,
    dtcm_stride: 0,
    to_submit: 0,
    to_end: 0,
    tag: 0,
};
static QUEUE: Global<Queue> =
    Global::uncopied(Queue { jobs: [NO_JOB; JOBS], first: 0, count: 0, held: 0, tags: [0; TAGS] });

impl Queue {
    /// Gives the controller as many rows as it takes.
    fn feed(&mut self) {
        for n in 0..self.count {
            let job = &mut self.jobs[(self.first + n) % JOBS];
            while job.to_submit > 0 {
                if self.held == 2 {
                    return;
                }
                dma::submit(job.out, job.sdram, DTCM + job.dtcm, job.row_bytes);
                job.sdram += job.sdram_stride;
                job.dtcm += job.dtcm_stride;
                job.to_submit -= 1;
                self.held += 1;
            }
        }
    }

    /// A row has ended: it was the oldest's.
    fn row_ended(&mut self) {
        self.held -= 1;
        let job = &mut self.jobs[self.first];
        job.to_end -= 1;
        if job.to_end == 0 {
            self.tags[usize::from(job.tag)] -= 1;
            self.first = (self.first + 1) % JOBS;
            self.count -= 1;
        }
    }
}

/// Queues a transfer; `false` if there is no room. Nothing is transferred of no rows.
pub fn submit(t: &Transfer) -> bool {
    if t.rows == 0 || t.row_bytes == 0 {
        return true;
    }
    let joined = t.sdram_stride == t.row_bytes && t.dtcm_stride == t.row_bytes;
    let (rows, row_bytes) = if joined { (1, t.rows * t.row_bytes) } else { (t.rows, t.row_bytes) };
    interrupt::masked(|| {
        // SAFETY: interrupts are masked.
        unsafe {
            QUEUE.with(|queue| {
                if queue.count == JOBS {
                    return false;
                }
                queue.jobs[(queue.first + queue.count) % JOBS] = Job {
                    out: t.direction == Direction::Out,
                    sdram: t.sdram,
                    dtcm: t.dtcm,
                    row_bytes,
                    sdram_stride: t.sdram_stride,
                    dtcm_stride: t.dtcm_stride,
                    to_submit: rows,
                    to_end: rows,
                    tag: t.tag,
                };
                queue.count += 1;
                queue.tags[usize::from(t.tag) % TAGS] += 1;
                queue.feed();
                true
            })
        }
    })
}

/// Whether all transfers with a tag have ended.
pub fn is_done(tag: u8) -> bool {
    // SAFETY: one byte is read.
    unsafe { QUEUE.with(|queue| (&raw const queue.tags[usize::from(tag) % TAGS]).read_volatile() == 0) }
}

/// Rows have ended; called by the interrupt handler.
pub fn ended() {
    while dma::status() & dma::DONE != 0 {
        dma::clear_done();
        // SAFETY: in the handler; the runtime touches the queue with interrupts masked only.
        unsafe {
            QUEUE.with(|queue| {
                queue.row_ended();
                queue.feed();
            });
        }
    }
}

/// The controller's status, for reports.
pub fn status() -> u32 {
    dma::status()
}
