//! Memories of chips, and the host threads that work on them.
//!
//! What changes a memory (compute jobs, the copies of DMA transfers, writes of the host) takes no part in the order of events:
//! times are known beforehand. So the simulation only notes it, chip by chip and in order, and other threads
//! execute the notes of whole chips. Whoever looks into a chip's memories first executes what is noted for it and not yet
//! begun, so the simulation never waits for an idle thread, and what it sees does not depend on the number of threads.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

use crate::DTCM_BYTES;
use crate::core::Transfer;
use crate::sdram::{Sdram, sdram_word};

/// What a core computes: changes its DTCM.
pub(crate) type Job = Box<dyn FnOnce(&mut [u32]) + Send>;

/// A change of a chip's memories. Transfers are those that the hardware does not refuse.
pub(crate) enum Op {
    /// A core's transfer in has ended: copies its rows.
    In(Transfer),
    /// A core submits a transfer out: keeps the content of its rows.
    Keep(Transfer),
    /// A core's oldest transfer out has ended: puts the content into SDRAM.
    Out(Transfer),
    /// A core's transfers are no more.
    Forget,
    /// A core's DTCM becomes zero.
    Clear,
    /// A core computes.
    Job(Job),
    /// The host writes SDRAM from a word on. (The core is of no matter.)
    Host(usize, Vec<u32>),
}

impl Op {
    /// About how long a host thread needs, in units of a cycle of a job.
    fn cycles(&self, job_cycles: u64) -> u64 {
        match self {
            Op::In(transfer) | Op::Keep(transfer) | Op::Out(transfer) => {
                500 + 20 * transfer.hardware_transfers() + 4 * transfer.words()
            }
            Op::Forget | Op::Clear | Op::Host(..) => 500,
            Op::Job(_) => 500 + job_cycles,
        }
    }
}

/// A core's data memory.
struct Dtcm {
    words: Box<[u32]>,
    /// Content of the transfers out that have not ended, oldest first.
    kept: VecDeque<Vec<u32>>,
}

/// The memories of a chip.
pub(crate) struct Memory {
    pub sdram: Sdram,
    dtcms: Vec<Dtcm>,
    /// Buffers for transfers out, to use again.
    spare: Vec<Vec<u32>>,
    /// What a job on another thread panicked with.
    panic: Option<Box<dyn Any + Send>>,
}

/// First word in SDRAM of a transfer, its rows, and words of each; rows that follow each other are one.
fn rows_of(transfer: &Transfer) -> (usize, u32, usize) {
    // The address was checked when the transfer was submitted.
    let first = sdram_word(transfer.sdram, 0).unwrap_or(0);
    match transfer.hardware_transfers() {
        0 => (first, 0, 0),
        1 => (first, 1, transfer.words() as usize),
        _ => (first, transfer.rows, transfer.row_bytes as usize / 4),
    }
}

impl Memory {
    fn new(cores: usize) -> Self {
        let dtcm = || Dtcm { words: vec![0; DTCM_BYTES as usize / 4].into_boxed_slice(), kept: VecDeque::new() };
        Self { sdram: Sdram::new(), dtcms: (0..cores).map(|_| dtcm()).collect(), spare: Vec::new(), panic: None }
    }

    /// DTCM of a core by its place among the chip's cores.
    pub fn dtcm(&mut self, place: u32) -> &mut [u32] {
        &mut self.dtcms[place as usize].words
    }

    fn execute(&mut self, place: u32, op: Op) {
        match op {
            Op::Host(word, words) => self.sdram.write(word, &words),
            Op::In(transfer) => {
                let dtcm = &mut self.dtcms[place as usize].words;
                let (first, rows, words) = rows_of(&transfer);
                for row in 0..rows {
                    let (from, to) =
                        (row * transfer.sdram_stride / 4, (transfer.dtcm + row * transfer.dtcm_stride) / 4);
                    self.sdram.read(first + from as usize, &mut dtcm[to as usize..to as usize + words]);
                }
            }
            Op::Keep(transfer) => {
                let dtcm = &mut self.dtcms[place as usize];
                let (_, rows, words) = rows_of(&transfer);
                let mut kept = self.spare.pop().unwrap_or_default();
                kept.clear();
                for row in 0..rows {
                    let from = ((transfer.dtcm + row * transfer.dtcm_stride) / 4) as usize;
                    kept.extend_from_slice(&dtcm.words[from..from + words]);
                }
                dtcm.kept.push_back(kept);
            }
            Op::Out(transfer) => {
                let (first, rows, words) = rows_of(&transfer);
                if let Some(kept) = self.dtcms[place as usize].kept.pop_front() {
                    for (row, part) in (0..rows).zip(kept.chunks_exact(words.max(1))) {
                        self.sdram.write(first + (row * transfer.sdram_stride / 4) as usize, part);
                    }
                    self.spare.push(kept);
                }
            }
            Op::Forget => self.dtcms[place as usize].kept.clear(),
            Op::Clear => {
                let dtcm = &mut self.dtcms[place as usize];
                dtcm.kept.clear();
                dtcm.words.fill(0);
            }
            Op::Job(job) => job(&mut self.dtcms[place as usize].words),
        }
    }
}

type Ops = Vec<(u32, Op)>;

/// What is noted for a chip and given to the other threads.
#[derive(Default)]
struct Given {
    ops: Ops,
    /// The chip is among those that threads look at, or a thread is at it.
    scheduled: bool,
}

struct Shared {
    /// One for each chip. Whoever takes notes out of `given` to execute them holds this lock before.
    memories: Vec<Mutex<Memory>>,
    given: Vec<Mutex<Given>>,
    /// Chips with given notes, oldest first.
    queue: Mutex<VecDeque<u32>>,
    queued: AtomicUsize,
    sleeping: AtomicUsize,
    wake: Condvar,
    stop: AtomicBool,
}

/// Turns of a worker's wait before it sleeps: some tens of microseconds.
const SPINS: usize = 2000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // After a panic of a job the content is whole, except for what the job itself works on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Shared {
    /// Executes what is given for the chip that has waited longest, if there is one. `batch` is empty before and after.
    fn execute_one(&self, batch: &mut Ops) -> bool {
        if self.queued.load(Ordering::Acquire) == 0 {
            return false;
        }
        let Some(chip) = ({
            let mut queue = lock(&self.queue);
            let chip = queue.pop_front();
            self.queued.store(queue.len(), Ordering::Release);
            chip
        }) else {
            return false;
        };
        let memory = &mut *lock(&self.memories[chip as usize]);
        loop {
            {
                let given = &mut *lock(&self.given[chip as usize]);
                std::mem::swap(&mut given.ops, batch);
                if batch.is_empty() {
                    given.scheduled = false;
                    return true;
                }
            }
            let ops = batch.drain(..);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| ops.for_each(|(place, op)| memory.execute(place, op))))
            {
                memory.panic.get_or_insert(panic);
            }
        }
    }

    fn work(&self) {
        let mut batch = Vec::new();
        let mut idle = 0;
        while !self.stop.load(Ordering::Acquire) {
            if self.execute_one(&mut batch) {
                idle = 0;
            } else if idle < SPINS {
                idle += 1;
                std::hint::spin_loop();
            } else {
                let mut queue = lock(&self.queue);
                self.sleeping.fetch_add(1, Ordering::SeqCst);
                while queue.is_empty() && !self.stop.load(Ordering::Acquire) {
                    queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleeping.fetch_sub(1, Ordering::SeqCst);
                idle = 0;
            }
        }
    }
}

/// What is noted for a chip and not given to others yet.
#[derive(Default)]
struct Noted {
    ops: Ops,
    /// About how long they take.
    cycles: u64,
    /// Something was given since the simulation last looked.
    given: bool,
    /// Buffer for what was given and is taken back; empty.
    taken: Ops,
}

pub(crate) struct Memories {
    shared: Arc<Shared>,
    noted: Vec<RefCell<Noted>>,
    workers: Vec<JoinHandle<()>>,
    hand_off_cycles: u64,
}

impl Memories {
    /// Memories, all zero, of chips with that many cores each, and `workers` threads beside the caller's. Fewer if the system
    /// gives fewer. Notes are given to them by parcels of at least `hand_off_cycles`.
    pub fn new(cores: &[usize], workers: usize, hand_off_cycles: u64) -> Self {
        let shared = Arc::new(Shared {
            memories: cores.iter().map(|&cores| Mutex::new(Memory::new(cores))).collect(),
            given: cores.iter().map(|_| Mutex::default()).collect(),
            queue: Mutex::new(VecDeque::with_capacity(cores.len())),
            queued: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let start = |number: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("spinnaker-sim-{number}")).spawn(move || shared.work()).ok()
        };
        let workers = (1..=workers).map_while(start).collect();
        Self { noted: cores.iter().map(|_| RefCell::default()).collect(), shared, workers, hand_off_cycles }
    }

    /// Changes a chip's memories after all that was noted before; `job_cycles` are those of a job.
    pub fn note(&self, chip: u32, place: u32, op: Op, job_cycles: u64) {
        if self.workers.is_empty() {
            lock(&self.shared.memories[chip as usize]).execute(place, op);
            return;
        }
        let noted = &mut *self.noted[chip as usize].borrow_mut();
        noted.cycles += op.cycles(job_cycles);
        noted.ops.push((place, op));
        if noted.cycles >= self.hand_off_cycles {
            self.give(chip, noted);
        }
    }

    /// A job of a core, after all that was noted before.
    pub fn compute(&self, chip: u32, place: u32, cycles: u64, job: impl FnOnce(&mut [u32]) + Send + 'static) {
        if self.workers.is_empty() {
            job(lock(&self.shared.memories[chip as usize]).dtcm(place));
        } else {
            self.note(chip, place, Op::Job(Box::new(job)), cycles);
        }
    }

    fn give(&self, chip: u32, noted: &mut Noted) {
        noted.cycles = 0;
        noted.given = true;
        {
            let given = &mut *lock(&self.shared.given[chip as usize]);
            if given.ops.is_empty() {
                std::mem::swap(&mut given.ops, &mut noted.ops);
            } else {
                given.ops.append(&mut noted.ops);
            }
            if std::mem::replace(&mut given.scheduled, true) {
                return;
            }
        }
        let mut queue = lock(&self.shared.queue);
        queue.push_back(chip);
        self.shared.queued.store(queue.len(), Ordering::Release);
        drop(queue);
        if self.shared.sleeping.load(Ordering::SeqCst) > 0 {
            self.shared.wake.notify_one();
        }
    }

    /// Looks into a chip's memories after all that was noted for it. A panic of a job goes on here.
    pub fn with<T>(&self, chip: u32, look: impl FnOnce(&mut Memory) -> T) -> T {
        let mutex = &self.shared.memories[chip as usize];
        if self.workers.is_empty() {
            return look(&mut lock(mutex));
        }
        let mut guard = try_lock(mutex).unwrap_or_else(|| self.wait(mutex));
        let noted = &mut *self.noted[chip as usize].borrow_mut();
        if std::mem::replace(&mut noted.given, false) {
            std::mem::swap(&mut lock(&self.shared.given[chip as usize]).ops, &mut noted.taken);
            noted.taken.drain(..).for_each(|(place, op)| guard.execute(place, op));
            if let Some(panic) = guard.panic.take() {
                drop(guard);
                resume_unwind(panic);
            }
        }
        noted.cycles = 0;
        noted.ops.drain(..).for_each(|(place, op)| guard.execute(place, op));
        look(&mut guard)
    }

    /// Waits for another thread's end at a chip; works for other chips meanwhile.
    #[cold]
    fn wait<'a>(&self, mutex: &'a Mutex<Memory>) -> MutexGuard<'a, Memory> {
        let mut batch = Vec::new();
        loop {
            if let Some(guard) = try_lock(mutex) {
                return guard;
            }
            if !self.shared.execute_one(&mut batch) {
                std::hint::spin_loop();
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Memories {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // The lock makes sure that no worker is between its look at `stop` and its sleep.
        drop(lock(&self.shared.queue));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch what jobs panic with; there is nothing to learn here.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_in_order_whoever_executes_them() {
        for (workers, hand_off_cycles) in [(0, 0), (1, 0), (2, 0), (3, 0), (2, 5000)] {
            let memories = Memories::new(&[3; 20], workers, hand_off_cycles);
            let mut expected = [[7u32; 3]; 20];
            for chip in 0..20 {
                for place in 0..3 {
                    memories.compute(chip, place, 100, |dtcm| dtcm.fill(7));
                }
            }
            for round in 0..50u32 {
                for (chip, expected) in (0..).zip(&mut expected) {
                    for (place, expected) in (0..).zip(expected) {
                        // Neither order nor number of these may change.
                        let job = move |dtcm: &mut [u32]| {
                            dtcm[..100].iter_mut().for_each(|word| *word = word.wrapping_mul(3).wrapping_add(round))
                        };
                        memories.compute(chip, place, 100, job);
                        *expected = expected.wrapping_mul(3).wrapping_add(round);
                    }
                }
                if round % 10 == 9 {
                    for (chip, expected) in (0..).zip(&expected) {
                        for (place, expected) in (0..).zip(expected) {
                            memories.with(chip, |memory| assert_eq!(memory.dtcm(place)[..100], [*expected; 100]));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_simulation() {
        for workers in 0..2 {
            let memories = Memories::new(&[1], workers, 0);
            let look = |memories: &Memories| memories.with(0, |memory| memory.dtcm(0)[0]);
            let fails = catch_unwind(AssertUnwindSafe(|| {
                memories.compute(0, 0, 9, |dtcm| assert_eq!(dtcm[0], 1, "on purpose"));
                look(&memories)
            }));
            assert!(fails.is_err());
            memories.compute(0, 0, 9, |dtcm| dtcm[0] = 7);
            assert_eq!(look(&memories), 7);
        }
    }
}
