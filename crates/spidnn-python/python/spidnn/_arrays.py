"""What users give, as lists of float32 arrays."""

import numpy as np


def array(value):
    """One array of float32, row-major."""
    return np.ascontiguousarray(value, dtype=np.float32)


def arrays(values):
    """One array for each input or output of a network: from one array, or from a list or tuple of arrays."""
    if isinstance(values, (list, tuple)) and values and all(hasattr(v, "shape") for v in values):
        return [array(v) for v in values]
    return [array(values)]


def one_or_all(values):
    """The array of a network with one output; a list for more."""
    return values[0] if len(values) == 1 else values
