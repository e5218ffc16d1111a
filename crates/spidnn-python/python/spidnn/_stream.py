"""Live streams: inputs go in as they come, outputs come out in their order, while the machine runs."""

from dataclasses import dataclass

import numpy as np

from spidnn._arrays import arrays


@dataclass(frozen=True, eq=False)
class Output:
    """What the network says to a sample."""

    sequence: int
    """The sample's number in its stream, from 0."""
    values: list[np.ndarray]
    """One array for each output of the network, without a sample axis."""
    pushed_ns: int
    """Machine time at which the sample was pushed."""
    answered_ns: int
    """Machine time at which the host had the outputs."""

    @property
    def latency_s(self):
        """Machine time from the push to the answer, in seconds."""
        return (self.answered_ns - self.pushed_ns) * 1e-9


class Stream:
    """A live stream, made by `Session.stream`: an iterator over `Output`.

    With `inputs` (any iterable of samples, or an array with samples first) the iterator takes as many as there is room for, and gives
    their outputs; a source that has nothing yet may give ``None``, and is asked again after the next output. Without, `push` samples as
    they come; the iterator ends when all are answered, and `pop` gives outputs one by one. Closed by its end, by `close`, or as a
    context manager.
    """

    def __init__(self, native, inputs=None):
        self._native = native
        self._inputs = None if inputs is None else iter(inputs)

    def push(self, sample):
        """Pushes a sample (an array without a sample axis, or a list of them for a network with several inputs): its number, or ``None``
        if as many are under way as may be; `pop` makes room."""
        return self._native.push(arrays(sample))

    def pop(self):
        """The next output; ``None`` if all that was pushed is answered. Waits for the batch that runs, no longer."""
        popped = self._native.pop()
        return None if popped is None else Output(*popped)

    def room(self):
        """Samples that can be pushed now."""
        return self._native.room()

    def close(self):
        """Forgets what is under way, and gives the session back."""
        self._native.close()
        self._inputs = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        return self

    def __next__(self):
        while True:
            self._fill()
            output = self.pop()
            if output is not None:
                return output
            if self._inputs is None:
                raise StopIteration

    def _fill(self):
        """Pushes what the source has, as far as there is room."""
        while self._inputs is not None and self.room() > 0:
            try:
                sample = next(self._inputs)
            except StopIteration:
                self._inputs = None
                return
            if sample is None:
                return
            self.push(sample)
