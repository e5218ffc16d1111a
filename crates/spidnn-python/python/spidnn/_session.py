"""Sessions: a model on a machine."""

import os
import weakref

from spidnn import _native
from spidnn._arrays import array, arrays, one_or_all
from spidnn._stream import Stream


class History:
    """What a fit gave: `epoch`, numbers from 0, and `history`, a list of values for each name, as in Keras."""

    def __init__(self, epochs, values):
        self.epoch = epochs
        self.history = dict(values)

    def __repr__(self):
        return f"History({self.history!r})"


class Session:
    """A model on a machine: loaded once, it predicts, evaluates, trains and streams as often as wanted.

    `machine` is a locator as on the command line: ``virtual:spin5``, ``virtual:spin3?drop=0.01``, ``board:HOST``, ``spalloc:SERVER``.
    `format` is that of the numbers: ``f32``, ``bfp16`` or ``int8``, whose ranges come from the samples of `calibration`, or else from
    the first prediction. `progress` is called with a line of text for each step on the way to the machine.

    Use it in a ``with`` statement, or call `close`: then a board or a job is given back at once. At the end of the process it is in any
    case. Ctrl-C ends what runs and leaves the machine clean.
    """

    def __init__(self, model, machine="virtual:spin5", *, format="f32", calibration=None, progress=None):
        self._native = _native.Session(model._native, machine, format, progress)
        self._finalizer = weakref.finalize(self, self._native.close)
        if calibration is not None:
            self._native.calibrate(arrays(calibration))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Gives the machine back."""
        self._finalizer()

    def predict(self, x):
        """The outputs for samples: an array, or a list of arrays for a network with several outputs."""
        return one_or_all(self._native.predict(arrays(x)))

    def evaluate(self, x, y, *, loss=None, metrics=(), sample_weight=None):
        """Loss and metrics by name, as a dict. Without `loss`: the one of the training, or one that fits the outputs."""
        weights = None if sample_weight is None else array(sample_weight)
        return self._native.evaluate(arrays(x), arrays(y), loss, list(metrics), weights)

    def fit(
        self,
        x,
        y,
        *,
        loss,
        optimizer="adam",
        epochs=1,
        batch_size=32,
        metrics=(),
        validation_data=None,
        validation_split=0.0,
        shuffle=True,
        seed=0,
        class_weight=None,
        sample_weight=None,
        callbacks=(),
        checkpoint=None,
        resume=False,
        verbose=1,
    ):
        """Trains on the machine and returns a `History`.

        Losses, optimizers and metrics go by their Keras names, with arguments after a colon: ``"adam:learning_rate=0.003"``.
        A callback is an object with ``on_epoch_end(epoch, logs)``, which may return true to end the training. `checkpoint` is a
        folder, written after each epoch and when Ctrl-C ends the training; with `resume`, the training goes on from there.
        """

        def epoch_ended(epoch, logs):
            if verbose:
                print(f"Epoch {epoch + 1}/{epochs} - " + " - ".join(f"{k}: {v:.4f}" for k, v in logs.items()), flush=True)
            return any([bool(callback.on_epoch_end(epoch, dict(logs))) for callback in callbacks])

        if validation_data is not None:
            validation_data = tuple(arrays(part) for part in validation_data)
        options = {
            "loss": loss,
            "optimizer": optimizer,
            "epochs": epochs,
            "batch_size": batch_size,
            "shuffle": shuffle,
            "seed": seed,
            "validation_split": validation_split,
            "metrics": list(metrics),
            "class_weight": dict(class_weight or {}),
            "checkpoint": None if checkpoint is None else os.fspath(checkpoint),
            "resume": resume,
        }
        weights = None if sample_weight is None else array(sample_weight)
        return History(*self._native.fit(arrays(x), arrays(y), weights, validation_data, options, epoch_ended))

    def get_weights(self):
        """The weights, in the order of Keras' ``get_weights()``."""
        return self._native.get_weights()

    def set_weights(self, weights):
        """Replaces the weights; the optimizer's state stays."""
        self._native.set_weights([array(w) for w in weights])

    def save(self, path):
        """Saves the model as it is now: ``.keras``, ``.h5``, or ``.npz`` for the weights alone."""
        self._native.save(os.fspath(path))

    def usage(self):
        """What the session has cost so far: machine time, packets, energy, .. as a dict."""
        return self._native.usage()

    def stream(self, inputs=None, *, capacity=None, batch_max=None, samples_per_chip=None):
        """Opens a live stream, an iterator over outputs: see `Stream`. `inputs` gives samples, one by one.

        At most `capacity` samples are under way, and `batch_max` at a time on the machine; by default as many as keep the link to
        the host and the cores busy. The session does nothing else until the stream is over or closed.
        """
        return Stream(self._native.stream(capacity, batch_max, samples_per_chip), inputs)
