//! Host threads that execute compute jobs.
//!
//! A job takes its core's DTCM along and brings it back. The simulation asks for the DTCM when it needs it; a job that no
//! worker has begun by then is executed on the spot, so the simulation never waits for an idle worker.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What a core computes: changes its DTCM.
pub(crate) type Job = Box<dyn FnOnce(&mut [u32]) + Send>;

enum Slot {
    Empty,
    Queued(Box<[u32]>, Job),
    Running,
    Done(Box<[u32]>),
    Panicked(Box<dyn Any + Send>),
}

struct Shared {
    /// One for each core.
    slots: Vec<Mutex<Slot>>,
    /// Cores with queued jobs, oldest first; some may have been executed meanwhile.
    queue: Mutex<VecDeque<u32>>,
    queued: AtomicUsize,
    sleeping: AtomicUsize,
    wake: Condvar,
    stop: AtomicBool,
}

/// Turns of a worker's wait before it sleeps: some tens of microseconds.
const SPINS: usize = 2000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Jobs run outside of locks and their panics are caught, so the content is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn execute(mut dtcm: Box<[u32]>, job: Job) -> Slot {
    match catch_unwind(AssertUnwindSafe(|| job(&mut dtcm))) {
        Ok(()) => Slot::Done(dtcm),
        Err(panic) => Slot::Panicked(panic),
    }
}

impl Shared {
    /// Executes the oldest queued job, if there is one.
    fn execute_one(&self) -> bool {
        if self.queued.load(Ordering::Acquire) == 0 {
            return false;
        }
        let Some(core) = ({
            let mut queue = lock(&self.queue);
            let core = queue.pop_front();
            self.queued.store(queue.len(), Ordering::Release);
            core
        }) else {
            return false;
        };
        let slot = &self.slots[core as usize];
        let mut guard = lock(slot);
        match std::mem::replace(&mut *guard, Slot::Running) {
            Slot::Queued(dtcm, job) => {
                drop(guard);
                let done = execute(dtcm, job);
                *lock(slot) = done;
            }
            other => *guard = other,
        }
        true
    }

    fn work(&self) {
        let mut idle = 0;
        while !self.stop.load(Ordering::Acquire) {
            if self.execute_one() {
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

pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool for `cores` cores with `workers` threads beside the caller's. Fewer if the system gives fewer.
    pub fn new(cores: usize, workers: usize) -> Self {
        let shared = Arc::new(Shared {
            slots: (0..cores).map(|_| Mutex::new(Slot::Empty)).collect(),
            queue: Mutex::new(VecDeque::with_capacity(cores)),
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
        Self { shared, workers }
    }

    pub fn submit(&self, core: u32, dtcm: Box<[u32]>, job: Job) {
        *lock(&self.shared.slots[core as usize]) = Slot::Queued(dtcm, job);
        let mut queue = lock(&self.shared.queue);
        queue.push_back(core);
        self.shared.queued.store(queue.len(), Ordering::Release);
        drop(queue);
        if self.shared.sleeping.load(Ordering::SeqCst) > 0 {
            self.shared.wake.notify_one();
        }
    }

    /// The core's DTCM after its job; executes the job here if nobody has begun it. A job's panic goes on here.
    pub fn join(&self, core: u32) -> Box<[u32]> {
        let slot = &self.shared.slots[core as usize];
        loop {
            let mut guard = lock(slot);
            match std::mem::replace(&mut *guard, Slot::Empty) {
                Slot::Done(dtcm) => return dtcm,
                Slot::Queued(dtcm, job) => {
                    drop(guard);
                    match execute(dtcm, job) {
                        Slot::Done(dtcm) => return dtcm,
                        Slot::Panicked(panic) => resume_unwind(panic),
                        _ => unreachable!("a job is done or has panicked"),
                    }
                }
                Slot::Panicked(panic) => {
                    drop(guard);
                    resume_unwind(panic);
                }
                Slot::Running => {
                    *guard = Slot::Running;
                    drop(guard);
                    if !self.shared.execute_one() {
                        std::hint::spin_loop();
                        std::thread::yield_now();
                    }
                }
                Slot::Empty => unreachable!("a core's DTCM is away only after a job took it"),
            }
        }
    }
}

impl Drop for Pool {
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
    fn jobs_change_their_own_dtcm_whoever_executes_them() {
        for workers in 0..3 {
            let pool = Pool::new(50, workers);
            for round in 0..20u32 {
                for core in 0..50 {
                    let job = move |dtcm: &mut [u32]| dtcm.iter_mut().for_each(|word| *word += core + round);
                    pool.submit(core, vec![core; 100].into_boxed_slice(), Box::new(job));
                }
                for core in (0..50).rev() {
                    assert_eq!(pool.join(core)[..], [2 * core + round; 100]);
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_simulation() {
        for workers in 0..2 {
            let pool = Pool::new(1, workers);
            pool.submit(0, Box::new([0; 4]), Box::new(|dtcm| assert_eq!(dtcm[0], 1, "on purpose")));
            assert!(catch_unwind(AssertUnwindSafe(|| pool.join(0))).is_err());
            pool.submit(0, Box::new([0; 4]), Box::new(|dtcm| dtcm[0] = 7));
            assert_eq!(pool.join(0)[0], 7);
        }
    }
}
