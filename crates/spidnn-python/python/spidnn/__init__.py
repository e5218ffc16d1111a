"""Deep neural networks on SpiNNaker machines, real or virtual, with Keras' words.

>>> import numpy as np
>>> import spidnn
>>> model = spidnn.load_model("mlp")
>>> with model.on("virtual:spin3") as session:
...     y = session.predict(np.zeros((2, 28, 28, 1), np.float32))
...     for output in session.stream(np.zeros((3, 28, 28, 1), np.float32)):
...         assert np.array_equal(output.values[0], y[0])
>>> y.shape
(2, 10)

A model comes from a Keras file or is built in; `Model.on` puts it on a machine, named as on the command line:
``virtual:spin5``, ``board:HOST``, ``spalloc:SERVER``. A `Session` predicts, evaluates, trains and streams as often as wanted, and is
a context manager: a machine on the network is left clean.

Arrays are NumPy's, or what `numpy.asarray` takes; samples come first, images are NHWC, numbers are float32.
"""

from spidnn._native import InputError, RunError, __version__
from spidnn._model import Model, load_model
from spidnn._session import History, Session
from spidnn._stream import Output, Stream

__all__ = ["History", "InputError", "Model", "Output", "RunError", "Session", "Stream", "__version__", "load_model"]
