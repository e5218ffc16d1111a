//! The Python package `spidnn`, its native half.
//!
//! Python's half (`python/spidnn`) has the words that users see and turns what they give into NumPy arrays; this one holds a model
//! (`model`), a session (`session`) and a live stream (`stream`). A session lives on a thread of its own (`worker`): a virtual
//! machine cannot move between threads, and Python is free while it works, so Ctrl-C is seen and other threads run.

mod convert;
mod model;
mod session;
mod stream;
mod worker;

use pyo3::prelude::*;

pyo3::create_exception!(
    spidnn,
    InputError,
    pyo3::exceptions::PyValueError,
    "Bad input: a model, data, or an argument that cannot be used."
);
pyo3::create_exception!(spidnn, RunError, pyo3::exceptions::PyRuntimeError, "A run that failed: a machine, or a core.");

/// What `spidnn._native` has.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("InputError", module.py().get_type::<InputError>())?;
    module.add("RunError", module.py().get_type::<RunError>())?;
    module.add_class::<model::Model>()?;
    module.add_class::<session::Session>()?;
    module.add_class::<stream::Stream>()
}
