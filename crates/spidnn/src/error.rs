//! What can go wrong, and whose fault it was.

use std::fmt;
use std::path::PathBuf;

use spinnaker_host::HostError;
use spinnaker_host::spalloc::SpallocError;
use spinnaker_machine::ChipXy;

use crate::data::DataError;
use crate::lease::Running;
use crate::metrics::MetricError;
use crate::names::NameError;

/// Why something failed. [`Error::is_input`] tells bad input from a failed run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something about the data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Something about a metric.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// The name of a loss or an optimizer.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A model or weights file.
    #[error(transparent)]
    Import(#[from] spidnn_import::ImportError),
    /// The graph itself.
    #[error(transparent)]
    Graph(#[from] spidnn_graph::GraphError),
    /// The model cannot be compiled for the machine.
    #[error(transparent)]
    Compile(#[from] spidnn_compiler::CompileError),
    /// A machine locator.
    #[error(transparent)]
    Locator(#[from] spinnaker_machine::LocatorError),
    /// An option that makes no sense.
    #[error("{0}")]
    Argument(String),
    /// A callback watches a value that does not exist.
    #[error(
        "{callback} watches `{monitor}`, which this fit does not give; it gives: {known}. Add the metric or the validation data, or watch one of these"
    )]
    Monitor {
        /// The callback.
        callback: &'static str,
        /// What it watches.
        monitor: String,
        /// What there is.
        known: String,
    },
    /// A checkpoint cannot be used.
    #[error("checkpoint {}: {problem}", path.display())]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}; choose a place that exists and can be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The loss is NaN or infinite.
    #[error(
        "the loss became {loss} in batch {batch} of epoch {} (both from 1): use a smaller learning rate or gradient clipping; the checkpoint before is kept",
        epoch + 1, batch = batch + 1
    )]
    NotFinite {
        /// Epoch, from 0.
        epoch: usize,
        /// Batch of the epoch, from 0.
        batch: usize,
        /// The loss.
        loss: f64,
    },
    /// Cores that failed, died, or came to no end.
    #[error("{trouble} after {time_s:.3} s of machine time:{}", list(.cores))]
    Core {
        /// What happened.
        trouble: CoreTrouble,
        /// The cores, each with its state.
        cores: Vec<CoreFailure>,
        /// Machine time of the run until it was noticed, in seconds.
        time_s: f64,
    },
    /// Somebody wanted an end (Ctrl-C).
    #[error("interrupted; the machine is left as it was found")]
    Interrupted,
    /// Another application runs on the machine.
    #[error(
        "{board}: application {} (`{}`) runs on {} cores (the first: chip {} core {}). End it with `spidnn app board:{board} --stop {}`, or boot the board anew",
        running.app.0, running.name, running.cores, running.first.0, running.first.1, running.app.0
    )]
    Busy {
        /// The board.
        board: String,
        /// The application.
        running: Running,
    },
    /// Another session has the machine.
    #[error(
        "{board} is in use by {holder}: wait for its end, or end what it has loaded with `spidnn app board:{board} --stop 30`"
    )]
    Held {
        /// The board.
        board: String,
        /// Who has it.
        holder: String,
    },
    /// A machine does not answer, or refuses.
    #[error(transparent)]
    Host(#[from] spinnaker_host::HostError),
    /// A board is silent, and could not be booted if that is why.
    #[error("{silent} If it is only not booted: {image}")]
    NotBooted {
        /// The silence.
        silent: HostError,
        /// Why there is no boot image.
        image: String,
    },
    /// An allocation server gives no boards, or takes them away.
    #[error(transparent)]
    Spalloc(#[from] SpallocError),
    /// The virtual machine refused something.
    #[error("the virtual machine: {0}")]
    Simulation(#[from] spinnaker_sim::SimError),
}

/// How a run went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreTrouble {
    /// A core failed or died.
    Failed,
    /// A run did not come to an end in time.
    TooLong {
        /// Machine time that a run may take, in seconds.
        limit_s: u64,
    },
    /// Nothing can happen any more, but cores still wait.
    Stalled,
}

impl fmt::Display for CoreTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoreTrouble::Failed => f.write_str("a core failed"),
            CoreTrouble::TooLong { limit_s } => write!(f, "the run took more than {limit_s} s"),
            CoreTrouble::Stalled => f.write_str("the run stalled"),
        }
    }
}

/// A core in trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreFailure {
    /// Its chip.
    pub chip: ChipXy,
    /// Its number on the chip.
    pub core: u8,
    /// Its state in words.
    pub state: String,
    /// What it wrote to its text buffer.
    pub log: String,
}

/// Cores that a message lists; the rest are counted.
const CORES_LISTED_MAX: usize = 8;

fn list(cores: &[CoreFailure]) -> String {
    let mut text = String::new();
    for c in cores.iter().take(CORES_LISTED_MAX) {
        text.push_str(&format!("\n  chip {} core {}: {}", c.chip, c.core, c.state));
        if let Some(line) = c.log.lines().last() {
            text.push_str(&format!(" (its last text: {line})"));
        }
    }
    if cores.len() > CORES_LISTED_MAX {
        text.push_str(&format!("\n  and {} more", cores.len() - CORES_LISTED_MAX));
    }
    text
}

impl Error {
    /// Whether the input was bad (exit status 2), rather than the run (exit status 1).
    pub fn is_input(&self) -> bool {
        match self {
            Error::Host(error) => matches!(error, HostError::NoSuchHost { .. } | HostError::Argument(_)),
            Error::Spalloc(error) => matches!(error, SpallocError::Request(_)),
            Error::NotFinite { .. } | Error::Core { .. } | Error::Simulation(_) => false,
            Error::Busy { .. } | Error::Held { .. } | Error::NotBooted { .. } | Error::Interrupted => false,
            _ => true,
        }
    }
}

impl From<spidnn_compiler::AccuracyError> for Error {
    fn from(error: spidnn_compiler::AccuracyError) -> Error {
        match error {
            spidnn_compiler::AccuracyError::Compile(e) => e.into(),
            spidnn_compiler::AccuracyError::Graph(e) => e.into(),
        }
    }
}
