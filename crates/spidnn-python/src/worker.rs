//! The thread on which a session lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use spidnn::{Error, Session};

use crate::RunError;
use crate::convert::raised;

/// How often Python is asked whether Ctrl-C was pressed.
const SIGNALS_PERIOD: Duration = Duration::from_millis(50);
/// How long an interrupted operation may take to leave the machine clean.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(15);

type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// How an operation takes Ctrl-C.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// It ends soon by itself, in order: it is waited for.
    Wait,
    /// It goes on to its end in the background: whoever comes next waits for it.
    Leave,
}

/// A thread with a session, which carries out one job after the other.
pub(crate) struct Worker {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
    interrupt: Arc<AtomicBool>,
    on_interrupt: OnInterrupt,
}

impl Worker {
    /// Starts the thread; `open` makes the session there. The flag becomes true on Ctrl-C.
    pub(crate) fn start(
        py: Python<'_>,
        on_interrupt: OnInterrupt,
        open: impl FnOnce(Arc<AtomicBool>) -> Result<Session, Error> + Send + 'static,
    ) -> PyResult<Worker> {
        let (jobs, queue) = channel::<Job>();
        let (opened, answer) = channel();
        let interrupt = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupt);
        let thread = std::thread::Builder::new().name("spidnn".into()).spawn(move || {
            let mut session = match open(flag) {
                Ok(session) => session,
                Err(error) => return drop(opened.send(Err(error))),
            };
            // Without anyone who waits for it, the queue is closed too.
            drop(opened.send(Ok(())));
            queue.into_iter().for_each(|job| job(&mut session));
        })?;
        let worker = Worker { jobs, thread, interrupt, on_interrupt };
        worker.answer(py, answer, on_interrupt)?;
        Ok(worker)
    }

    /// Whether the flag of Ctrl-C is set; for jobs that look themselves.
    pub(crate) fn interrupt(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupt)
    }

    /// Queues a job.
    pub(crate) fn queue(&self, job: impl FnOnce(&mut Session) + Send + 'static) -> PyResult<()> {
        self.interrupt.store(false, Ordering::Relaxed);
        self.jobs.send(Box::new(job)).map_err(|_| gone())
    }

    /// Carries out a job and waits for its answer; Ctrl-C ends it.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        py: Python<'_>,
        on_interrupt: OnInterrupt,
        job: impl FnOnce(&mut Session) -> Result<T, Error> + Send + 'static,
    ) -> PyResult<T> {
        let (send, answer) = channel();
        self.queue(move |session| drop(send.send(job(session))))?;
        self.answer(py, answer, on_interrupt)
    }

    /// [`Worker::ask`] for a job that takes Ctrl-C as the machine does.
    pub(crate) fn ask_machine<T: Send + 'static>(
        &self,
        py: Python<'_>,
        job: impl FnOnce(&mut Session) -> Result<T, Error> + Send + 'static,
    ) -> PyResult<T> {
        self.ask(py, self.on_interrupt, job)
    }

    /// Waits for the answer of a job that was queued.
    pub(crate) fn answer_machine<T: Send>(&self, py: Python<'_>, answer: Receiver<Result<T, Error>>) -> PyResult<T> {
        self.answer(py, answer, self.on_interrupt)
    }

    /// Waits for an answer, with an eye on Ctrl-C.
    fn answer<T: Send>(
        &self,
        py: Python<'_>,
        mut answer: Receiver<Result<T, Error>>,
        on_interrupt: OnInterrupt,
    ) -> PyResult<T> {
        let mut interrupted: Option<(PyErr, Instant)> = None;
        loop {
            let (received, receiver) = py.detach(move || (answer.recv_timeout(SIGNALS_PERIOD), answer));
            answer = receiver;
            let over = match received {
                Ok(value) if interrupted.is_none() => return value.map_err(raised),
                Ok(_) => true,
                Err(RecvTimeoutError::Disconnected) if interrupted.is_none() => return Err(gone()),
                Err(RecvTimeoutError::Disconnected) => true,
                Err(RecvTimeoutError::Timeout) => false,
            };
            if let Err(error) = py.check_signals() {
                self.interrupt.store(true, Ordering::Relaxed);
                if interrupted.is_some() || on_interrupt == OnInterrupt::Leave {
                    return Err(error);
                }
                interrupted = Some((error, Instant::now()));
            }
            if let Some((error, _)) = interrupted.take_if(|(_, since)| over || since.elapsed() > INTERRUPT_LIMIT) {
                return Err(error);
            }
        }
    }

    /// Ends the thread after its last job. A machine on the network is left clean by then; a virtual one has nothing to clean.
    pub(crate) fn close(self, py: Python<'_>) {
        drop(self.jobs);
        if self.on_interrupt == OnInterrupt::Wait {
            // A thread that panicked has said so already.
            drop(py.detach(|| self.thread.join()));
        }
    }
}

fn gone() -> PyErr {
    RunError::new_err("the session has ended by an error of its own (a panic, told above): open another")
}
