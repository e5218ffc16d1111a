//! Why a network cannot be compiled.

use spinnaker_machine::ChipXy;

/// Why a network cannot be compiled for a machine.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CompileError {
    /// A buffer of a layer is larger than a core's memory.
    #[error(
        "layer '{layer}' needs {needed} bytes of a core's local memory at once, of which {available} are free: make the layer's rows or channels smaller"
    )]
    LayerTooLarge {
        /// Name of the layer.
        layer: String,
        /// Bytes that the smallest tile needs.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// The model does not fit a chip's SDRAM.
    #[error(
        "the model needs {needed} bytes on each chip with {samples} samples at a time, of which a chip has {available}; the largest part is layer '{layer}' with {layer_bytes} bytes: use a smaller batch or a smaller model"
    )]
    ModelTooLarge {
        /// Bytes in all.
        needed: u64,
        /// Bytes that a chip has.
        available: u64,
        /// The layer with most of them.
        layer: String,
        /// Its bytes.
        layer_bytes: u64,
        /// Samples on a chip.
        samples: usize,
    },
    /// The machine has no chip with working application cores.
    #[error("the machine has no chip with a working application core")]
    NoCores,
    /// More terms in a sum than the arithmetic takes.
    #[error("layer '{layer}' sums {terms} products, more than the {limit} of one block: split the layer")]
    TooManyTerms {
        /// Name of the layer.
        layer: String,
        /// Terms of its sum.
        terms: usize,
        /// Limit.
        limit: usize,
    },
    /// Something of the graph that has no kernel.
    #[error("layer '{layer}': {what} cannot run on the machine; {remedy}")]
    Unsupported {
        /// Name of the layer.
        layer: String,
        /// What it asks for.
        what: String,
        /// What to do instead.
        remedy: String,
    },
    /// Number of losses and outputs differ.
    #[error("{losses} losses were given for a model with {outputs} outputs: give one loss, or one for each output")]
    Losses {
        /// Losses given.
        losses: usize,
        /// Outputs of the model.
        outputs: usize,
    },
    /// Training with numbers that are for predictions only.
    #[error("format int8 is for predictions: train with format f32 or bfp16, then predict with int8")]
    TrainingInBytes,
    /// A batch of no samples.
    #[error("the batch size is 0: give at least 1")]
    EmptyBatch,
    /// Routing failed.
    #[error(transparent)]
    Route(#[from] crate::route::RouteError),
    /// A command list could not be encoded.
    #[error("the command list of core {core} on chip {chip} could not be encoded: {reason}")]
    Encode {
        /// Chip.
        chip: ChipXy,
        /// Core.
        core: u8,
        /// Why.
        reason: String,
    },
}
