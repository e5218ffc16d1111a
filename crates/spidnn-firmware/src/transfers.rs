//! DMA transfers of rows, as the runtime asks for them, on a controller that takes one row at a time and queues one more.
//!
//! The interrupt handler (`dma.s`) gives the controller the next row when one ends; it knows the layout of [`Queue`].

use core::mem::offset_of;

use spidnn_core::{Direction, Transfer};

use crate::device::dma;
use crate::global::Global;
use crate::interrupt;
use crate::sleep::sleep_until;

/// Transfers that may be under way.
const JOBS: u32 = 2;
/// Rows that the controller takes.
const ROWS_HELD: u32 = 2;
/// Tags of transfers are below this. Command lists have sixteen.
const TAGS: usize = 32;
/// Tag of pages of code.
pub const TAG_PAGE: u8 = 16;
/// Data memory in the core's own address space.
pub const DTCM: u32 = 0x0040_0000;

/// A transfer under way.
#[derive(Clone, Copy)]
#[repr(C)]
struct Job {
    /// Of the row that is submitted next: addresses, and the controller's description.
    sdram: u32,
    tcm: u32,
    description: u32,
    sdram_stride: u32,
    tcm_stride: u32,
    /// Rows that the controller has not been given, and rows that have not ended.
    to_submit: u32,
    to_end: u32,
    tag: u32,
}

/// Aligned so that the address of one job becomes that of the other by turning one bit.
#[repr(C, align(64))]
struct Queue {
    jobs: [Job; JOBS as usize],
    /// Address of the oldest job.
    oldest: u32,
    /// Address of the job that is being submitted; 0 if all rows of all jobs are.
    submitting: u32,
    /// Jobs, and rows that the controller holds.
    count: u32,
    held: u32,
    /// Jobs with each tag.
    tags: [u8; TAGS],
}

const NO_JOB: Job =
    Job { sdram: 0, tcm: 0, description: 0, sdram_stride: 0, tcm_stride: 0, to_submit: 0, to_end: 0, tag: 0 };
#[unsafe(no_mangle)]
static TRANSFERS: Global<Queue> = Global::uncopied(Queue {
    jobs: [NO_JOB; JOBS as usize],
    oldest: 0,
    submitting: 0,
    count: 0,
    held: 0,
    tags: [0; TAGS],
});

// What `dma.s` knows.
const _: () = {
    assert!(size_of::<Job>() == 32);
    assert!(offset_of!(Job, to_submit) == 20 && offset_of!(Job, to_end) == 24 && offset_of!(Job, tag) == 28);
    assert!(offset_of!(Queue, oldest) == 64 && offset_of!(Queue, submitting) == 68);
    assert!(offset_of!(Queue, count) == 72 && offset_of!(Queue, held) == 76 && offset_of!(Queue, tags) == 80);
};

impl Queue {
    /// Gives the controller rows while it takes some.
    fn feed(&mut self) {
        while self.submitting != 0 && self.held < ROWS_HELD {
            // The address is that of one of the jobs.
            let number = usize::from(self.submitting != (&raw const self.jobs[0]) as u32);
            let job = &mut self.jobs[number];
            dma::submit(job.sdram, job.tcm, job.description);
            job.sdram = job.sdram.wrapping_add(job.sdram_stride);
            job.tcm = job.tcm.wrapping_add(job.tcm_stride);
            job.to_submit -= 1;
            self.held += 1;
            if job.to_submit == 0 {
                let other = 1 - number;
                let more = self.jobs[other].to_submit > 0;
                self.submitting = if more { (&raw const self.jobs[other]) as u32 } else { 0 };
            }
        }
    }

    fn add(&mut self, job: Job) -> bool {
        if self.count == JOBS {
            return false;
        }
        let first = (&raw const self.jobs[0]) as u32;
        if self.count == 0 {
            self.oldest = first;
        }
        let number = usize::from((self.oldest == first) == (self.count == 1));
        self.jobs[number] = job;
        self.count += 1;
        self.tags[job.tag as usize % TAGS] += 1;
        if self.submitting == 0 {
            self.submitting = (&raw const self.jobs[number]) as u32;
        }
        self.feed();
        true
    }
}

/// Queues a transfer, when there is room. Nothing is transferred of no rows.
pub fn submit(t: &Transfer) {
    if t.rows == 0 || t.row_bytes == 0 {
        return;
    }
    let joined = t.sdram_stride == t.row_bytes && t.dtcm_stride == t.row_bytes;
    let (rows, row_bytes) = if joined { (1, t.rows * t.row_bytes) } else { (t.rows, t.row_bytes) };
    let job = Job {
        sdram: t.sdram,
        tcm: DTCM.wrapping_add(t.dtcm),
        description: dma::description(t.direction == Direction::Out, row_bytes),
        sdram_stride: t.sdram_stride,
        tcm_stride: t.dtcm_stride,
        to_submit: rows,
        to_end: rows,
        tag: t.tag.into(),
    };
    // SAFETY: interrupts are masked.
    while !interrupt::masked(|| unsafe { TRANSFERS.with(|queue| queue.add(job)) }) {
        sleep_until(has_room);
    }
}

/// Whether another transfer can be queued.
fn has_room() -> bool {
    // SAFETY: one word is read.
    unsafe { TRANSFERS.with(|queue| (&raw const queue.count).read_volatile() < JOBS) }
}

/// Whether all transfers with a tag have ended.
pub fn is_done(tag: u8) -> bool {
    // SAFETY: one byte is read.
    unsafe { TRANSFERS.with(|queue| (&raw const queue.tags[usize::from(tag) % TAGS]).read_volatile() == 0) }
}
