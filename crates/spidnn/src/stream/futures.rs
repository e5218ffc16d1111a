//! A stream as the `futures` crates' `Stream` and `Sink`.
//!
//! There is no thread behind it: whoever polls for an output lets the machine work on one batch, and that poll takes as long as the
//! batch does. So both halves (`StreamExt::split`) are for tasks of one thread.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_sink::Sink;
use spidnn_graph::Tensor;

use super::{Output, Push, Stream};
use crate::Error;

impl futures_core::Stream for Stream<'_> {
    type Item = Result<Output, Error>;

    /// The next output; the end once the sink is closed and all is answered, or after an error.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.pop() {
            Ok(Some(output)) => Poll::Ready(Some(Ok(output))),
            Ok(None) if self.failed || self.closed => Poll::Ready(None),
            Ok(None) => {
                self.receiver = Some(context.waker().clone());
                Poll::Pending
            }
            Err(error) => {
                self.wake_sender();
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Sink<Vec<Tensor>> for Stream<'_> {
    type Error = Error;

    /// Ready when there is room. Only outputs that are taken make room; until then the machine works on.
    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.failed || self.room() > 0 {
            return Poll::Ready(Ok(()));
        }
        if self.engine.ready() == 0 {
            self.step()?;
        }
        self.wake_receiver();
        self.sender = Some(context.waker().clone());
        Poll::Pending
    }

    fn start_send(mut self: Pin<&mut Self>, inputs: Vec<Tensor>) -> Result<(), Error> {
        let pushed = self.push(inputs)?;
        self.wake_receiver();
        match pushed {
            Push::Accepted(_) => Ok(()),
            Push::Full(_) => Err(Error::Argument("a sample was sent before the stream was ready for it".into())),
        }
    }

    /// At once: what is in the queue will be answered as outputs are taken.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    /// No more samples come: outputs end when all is answered.
    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.closed = true;
        self.wake_receiver();
        Poll::Ready(Ok(()))
    }
}
