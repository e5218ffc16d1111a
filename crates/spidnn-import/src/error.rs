//! What can go wrong with a file, said so that the reader of the message knows what to do.

use std::path::{Path, PathBuf};

/// One thing about a model that SpiDNN cannot take (or give), with the layer it concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Name of the layer as the file has it; empty when the problem is of the whole model.
    pub layer: String,
    /// What is wrong, with the values that are.
    pub what: String,
    /// The nearest form that SpiDNN does take, if there is one.
    pub nearest: Option<String>,
}

impl Problem {
    /// A problem of `layer` with nothing near that would do.
    pub fn new(layer: impl Into<String>, what: impl Into<String>) -> Self {
        Self { layer: layer.into(), what: what.into(), nearest: None }
    }

    /// The same problem, with the form that would be taken.
    pub fn nearest(mut self, nearest: impl Into<String>) -> Self {
        self.nearest = Some(nearest.into());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.layer.is_empty() {
            f.write_str("the model: ")?;
        } else {
            write!(f, "layer `{}`: ", self.layer)?;
        }
        f.write_str(&self.what)?;
        match &self.nearest {
            Some(nearest) => write!(f, " (nearest that works: {nearest})"),
            None => Ok(()),
        }
    }
}

/// At most this many problems are written out; the rest are counted.
const PROBLEMS_SHOWN_MAX: usize = 40;

fn list(problems: &[Problem]) -> String {
    let mut text = format!("{} problem{} in the model:", problems.len(), if problems.len() == 1 { "" } else { "s" });
    for problem in problems.iter().take(PROBLEMS_SHOWN_MAX) {
        text.push_str(&format!("\n  {problem}"));
    }
    if problems.len() > PROBLEMS_SHOWN_MAX {
        text.push_str(&format!("\n  and {} more", problems.len() - PROBLEMS_SHOWN_MAX));
    }
    text
}

fn of(file: &Option<PathBuf>) -> String {
    file.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default()
}

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `read`, `write`, ...
        doing: &'static str,
        /// The system's own words.
        source: std::io::Error,
    },
    /// The bytes are not what the format asks for: truncated, damaged, or another format.
    #[error("{}{what}", of(.file))]
    Format {
        /// The file, where there is one.
        file: Option<PathBuf>,
        /// What was expected and what was found.
        what: String,
    },
    /// Larger than the reader allows (see [`crate::limits`]).
    #[error("{}{what} is {found}, more than the {limit} that is read; if the file is from a trusted source, split or shrink it", of(.file))]
    TooLarge {
        /// The file, where there is one.
        file: Option<PathBuf>,
        /// What is too large, with its unit.
        what: String,
        /// How large it says it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The model holds things that SpiDNN does not have; all of them are listed.
    #[error("{}", list(.0))]
    Unsupported(Vec<Problem>),
    /// The file holds an architecture only.
    #[error(
        "{}: holds the architecture without weights; give a weights file as well (.weights.h5, .h5, .keras, .npz or weights .json)",
        .0.display()
    )]
    WeightsNeeded(PathBuf),
    /// The ending of the file's name says nothing that is known.
    #[error("{}: the ending is not one of {wanted}", .path.display())]
    Extension {
        /// The file.
        path: PathBuf,
        /// The endings that would do.
        wanted: &'static str,
    },
}

impl ImportError {
    pub(crate) fn format(what: impl Into<String>) -> Self {
        Self::Format { file: None, what: what.into() }
    }

    pub(crate) fn too_large(what: impl Into<String>, found: u64, limit: u64) -> Self {
        Self::TooLarge { file: None, what: what.into(), found, limit }
    }

    /// The same error, with the file's name unless it has one.
    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        if let Self::Format { file, .. } | Self::TooLarge { file, .. } = &mut self
            && file.is_none()
        {
            *file = Some(path.to_owned());
        }
        self
    }

    /// The problems of the model, where that is what went wrong.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unsupported(problems) => problems,
            _ => &[],
        }
    }
}
