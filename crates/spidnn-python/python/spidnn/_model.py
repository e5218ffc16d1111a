"""Models."""

import os

from spidnn import _native
from spidnn._arrays import array
from spidnn._session import Session


class Model:
    """Layers and weights, not yet on a machine."""

    def __init__(self, native):
        self._native = native

    def summary(self):
        """Layers, shapes and parameters, as text."""
        return self._native.summary()

    def get_weights(self):
        """The weights, in the order of Keras' ``get_weights()``."""
        return self._native.get_weights()

    def set_weights(self, weights):
        """Replaces the weights. Raises `InputError` if there are more or fewer, or one has another shape."""
        self._native.set_weights([array(w) for w in weights])

    def save(self, path):
        """Saves the model by the extension of the name: ``.keras``, ``.h5``, or ``.npz`` for the weights alone."""
        self._native.save(os.fspath(path))

    def on(self, machine="virtual:spin5", *, format="f32", calibration=None, progress=None):
        """Puts the model on a machine: see `Session`."""
        return Session(self, machine, format=format, calibration=calibration, progress=progress)


def load_model(name_or_path, *, seed=0):
    """Opens a model file (``.keras``, ``.h5``, ``.json``) or a built-in model (``lenet5``, ``mlp``, ``resnet20``, ..), whose
    weights are random by `seed`."""
    return Model(_native.Model(os.fspath(name_or_path), seed))
