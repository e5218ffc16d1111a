//! Errors of graphs, weights and the reference executor: each names the thing, what was found, what was expected and the remedy.

/// What can be wrong with a graph, its weights or what it is fed with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// Two layers with one name.
    #[error("layer `{name}`: there is already a layer of this name; give each layer a name of its own")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A layer cannot take what it is given, or one of its arguments makes no sense.
    #[error("layer `{layer}`: found {found}, expected {expected}; {remedy}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
        /// What to do about it.
        remedy: String,
    },
    /// The graph as a whole is wrong: an unknown node, an input that is missing, an output twice, ..
    #[error("model `{model}`: found {found}, expected {expected}; {remedy}")]
    Model {
        /// Name of the model.
        model: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
        /// What to do about it.
        remedy: String,
    },
    /// A parameter's tensor is wrong.
    #[error("parameter `{parameter}`: found {found}, expected {expected}; {remedy}")]
    Parameter {
        /// `layer/parameter`.
        parameter: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
        /// What to do about it.
        remedy: String,
    },
    /// Data (inputs, targets, sample weights) are wrong.
    #[error("{what}: found {found}, expected {expected}; {remedy}")]
    Data {
        /// Which data.
        what: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
        /// What to do about it.
        remedy: String,
    },
}

impl GraphError {
    /// [`GraphError::Layer`] from its parts.
    pub fn layer(
        layer: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Layer { layer: layer.into(), found: found.into(), expected: expected.into(), remedy: remedy.into() }
    }

    /// [`GraphError::Model`] from its parts.
    pub fn model(
        model: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Model { model: model.into(), found: found.into(), expected: expected.into(), remedy: remedy.into() }
    }

    /// [`GraphError::Parameter`] from its parts.
    pub fn parameter(
        parameter: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Parameter {
            parameter: parameter.into(),
            found: found.into(),
            expected: expected.into(),
            remedy: remedy.into(),
        }
    }

    /// [`GraphError::Data`] from its parts.
    pub fn data(
        what: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Data { what: what.into(), found: found.into(), expected: expected.into(), remedy: remedy.into() }
    }
}

/// A shape as Keras prints it, the batch dimension first: `(None, 28, 28, 1)`.
pub fn keras_shape(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "(None,)".to_owned();
    }
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("(None, {})", dims.join(", "))
}
