//! What can be wrong with bytes from outside, or with a value that is to become bytes.

/// Why bytes could not be read as a format, or a value not be written in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end before the format does.
    #[error("{what}: {got_bytes} bytes where at least {needed_bytes} are needed")]
    Truncated {
        /// The format.
        what: &'static str,
        /// The least that it needs.
        needed_bytes: usize,
        /// What there is.
        got_bytes: usize,
    },
    /// More bytes than the format carries.
    #[error("{what}: {got_bytes} bytes where at most {limit_bytes} fit")]
    TooLong {
        /// The format.
        what: &'static str,
        /// The most that it carries.
        limit_bytes: usize,
        /// What there is.
        got_bytes: usize,
    },
    /// The buffer given for the output is too small.
    #[error("a buffer of {got_bytes} bytes where {needed_bytes} are to be written")]
    BufferTooSmall {
        /// What is to be written.
        needed_bytes: usize,
        /// The buffer's length.
        got_bytes: usize,
    },
    /// A field has a value that the format does not know or that does not fit into its bits.
    #[error("{what}: value {value:#x}")]
    Field {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u32,
    },
}

/// The result of reading or writing a format.
pub type Result<T> = core::result::Result<T, WireError>;
