//! Between Python's values and SpiDNN's.

use numpy::{IntoPyArray, PyArrayDyn, PyReadonlyArrayDyn};
use pyo3::prelude::*;
use spidnn::{Dataset, Error, Tensor};

use crate::{InputError, RunError};

/// Arrays of float32, as Python's half makes them.
pub(crate) type Arrays<'py> = Vec<PyReadonlyArrayDyn<'py, f32>>;

/// Bad input is a `ValueError`, a failed run a `RuntimeError`.
pub(crate) fn raised(error: Error) -> PyErr {
    let text = error.to_string();
    if error.is_input() { InputError::new_err(text) } else { RunError::new_err(text) }
}

pub(crate) fn tensors(arrays: &[PyReadonlyArrayDyn<'_, f32>]) -> Vec<Tensor> {
    arrays.iter().map(|array| array.as_array().to_owned()).collect()
}

pub(crate) fn arrays<'py>(py: Python<'py>, tensors: Vec<Tensor>) -> Vec<Bound<'py, PyArrayDyn<f32>>> {
    tensors.into_iter().map(|tensor| tensor.into_pyarray(py)).collect()
}

/// A data set; without targets for predictions.
pub(crate) fn dataset(x: &Arrays<'_>, y: &Arrays<'_>, sample_weight: Option<Vec<f32>>) -> Dataset {
    Dataset { targets: tensors(y), sample_weight, ..Dataset::inputs(tensors(x)) }
}
