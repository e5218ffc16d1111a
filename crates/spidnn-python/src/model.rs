//! A model as Python sees it.

use std::path::PathBuf;

use numpy::PyArrayDyn;
use pyo3::prelude::*;

use crate::convert::{Arrays, arrays, raised, tensors};

/// Layers and weights: see [`spidnn::Model`].
#[pyclass(module = "spidnn._native")]
pub(crate) struct Model {
    pub(crate) model: spidnn::Model,
}

#[pymethods]
impl Model {
    #[new]
    fn open(py: Python<'_>, name_or_path: String, seed: u64) -> PyResult<Model> {
        let model = py.detach(|| spidnn::Model::open(&name_or_path, seed)).map_err(raised)?;
        Ok(Model { model })
    }

    fn summary(&self) -> String {
        self.model.summary()
    }

    fn get_weights<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyArrayDyn<f32>>> {
        arrays(py, self.model.weights().to_vec())
    }

    fn set_weights(&mut self, weights: Arrays<'_>) -> PyResult<()> {
        self.model.set_weights(tensors(&weights)).map_err(raised)
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.model.save(&path)).map_err(raised)
    }
}
