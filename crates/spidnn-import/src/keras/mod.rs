//! Keras' JSON: model configurations and training configurations, in and out.

mod args;
mod layers;
pub(crate) mod model;
mod naming;
pub(crate) mod training;
pub(crate) mod write;
