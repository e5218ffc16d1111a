//! A live stream, as Python sees it.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use spidnn::stream::{Output, Push, StreamOptions};
use spidnn::{Error, Tensor};

use crate::RunError;
use crate::convert::{Arrays, arrays, raised, tensors};
use crate::worker::Worker;

/// What a stream is asked, and who waits for the answer.
enum Request {
    Push(Vec<Tensor>, Sender<Result<Option<u64>, Error>>),
    Pop(Sender<Result<Option<Output>, Error>>),
    Room(Sender<Result<usize, Error>>),
}

/// The way to an open stream; empty once it is closed. Its session and its handle have it, and either may close it.
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<Mutex<Option<Sender<Request>>>>);

impl Line {
    fn get(&self) -> Option<Sender<Request>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, requests: Option<Sender<Request>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = requests;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.get().is_some()
    }

    /// Ends the stream: the session is free after the batch that runs.
    pub(crate) fn close(&self) {
        self.set(None);
    }
}

/// Samples in, outputs out: see [`spidnn::stream`]. It has the session until it is closed.
#[pyclass(module = "spidnn._native")]
pub(crate) struct Stream {
    line: Line,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.line.close();
    }
}

/// An output: number, arrays, and the machine's times of question and answer, ns.
type Popped<'py> = (u64, Vec<Bound<'py, PyArrayDyn<f32>>>, u64, u64);

impl Stream {
    /// Opens a stream on a worker's session, and gives the way to it, too.
    pub(crate) fn open(py: Python<'_>, worker: &Worker, options: StreamOptions) -> PyResult<(Stream, Line)> {
        let (requests, queue) = channel::<Request>();
        let (opened, answer) = channel();
        worker.queue(move |session| {
            let mut stream = match session.stream(options) {
                Ok(stream) => stream,
                Err(error) => return drop(opened.send(Err(error))),
            };
            drop(opened.send(Ok(())));
            for request in queue {
                match request {
                    Request::Push(sample, answer) => drop(answer.send(stream.push(sample).map(accepted))),
                    Request::Pop(answer) => drop(answer.send(stream.pop())),
                    Request::Room(answer) => drop(answer.send(Ok(stream.room()))),
                }
            }
        })?;
        worker.answer_machine(py, answer)?;
        let line = Line::default();
        line.set(Some(requests));
        Ok((Stream { line: line.clone() }, line))
    }

    fn ask<T: Send>(&self, py: Python<'_>, request: impl FnOnce(Sender<Result<T, Error>>) -> Request) -> PyResult<T> {
        let requests = self.line.get().ok_or_else(|| RunError::new_err("this stream is closed"))?;
        let (send, answer) = channel();
        let ended = || RunError::new_err("the session of this stream has ended");
        requests.send(request(send)).map_err(|_| ended())?;
        drop(requests);
        py.detach(move || answer.recv()).map_err(|_| ended())?.map_err(raised)
    }
}

/// The number of a sample that was taken.
fn accepted(push: Push) -> Option<u64> {
    match push {
        Push::Accepted(sequence) => Some(sequence),
        Push::Full(_) => None,
    }
}

#[pymethods]
impl Stream {
    /// The number of the sample; `None` if there is no room.
    fn push(&self, py: Python<'_>, sample: Arrays<'_>) -> PyResult<Option<u64>> {
        let sample = tensors(&sample);
        self.ask(py, |answer| Request::Push(sample, answer))
    }

    /// The next output; `None` if all is answered.
    fn pop<'py>(&self, py: Python<'py>) -> PyResult<Option<Popped<'py>>> {
        let output = self.ask(py, Request::Pop)?;
        Ok(output.map(|o| (o.sequence, arrays(py, o.values), o.pushed_ns, o.answered_ns)))
    }

    /// Samples that can be pushed now.
    fn room(&self, py: Python<'_>) -> PyResult<usize> {
        self.ask(py, Request::Room)
    }

    /// Gives the session back; nothing if that was done.
    fn close(&self) {
        self.line.close();
    }
}
