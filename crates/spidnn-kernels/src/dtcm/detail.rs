//! The host's checks: errors say what is wrong.

/// Why a kernel call must not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadCall {
    /// A buffer does not start at a multiple of four.
    Misaligned {
        /// Name of the parameter.
        field: &'static str,
        /// Byte offset that it held.
        address: u32,
    },
    /// A buffer leaves the DTCM (also: a buffer that is needed is absent).
    OutOfBounds {
        /// Name of the parameter.
        field: &'static str,
        /// First word, relative to the DTCM.
        start_word: i64,
        /// First word after the buffer.
        end_word: i64,
    },
    /// Two buffers that must be apart share words.
    Overlap {
        /// Name of one parameter.
        a: &'static str,
        /// Name of the other.
        b: &'static str,
    },
    /// A parameter has a value that means nothing.
    Value {
        /// Name of the parameter.
        field: &'static str,
        /// What it held.
        value: u32,
    },
    /// A sum has more terms than an accumulator takes exactly.
    TooManyTerms {
        /// How many.
        terms: u32,
    },
}

impl BadCall {
    /// Two buffers that must be apart share words.
    pub(crate) fn overlap(a: &Span, b: &Span) -> BadCall {
        BadCall::Overlap { a: a.field, b: b.field }
    }
    /// A parameter has a value that means nothing.
    pub(crate) fn value(field: &'static str, value: u32) -> BadCall {
        BadCall::Value { field, value }
    }
    /// A sum has more terms than an accumulator takes exactly.
    pub(crate) fn too_many_terms(terms: u32) -> BadCall {
        BadCall::TooManyTerms { terms }
    }
}

impl core::fmt::Display for BadCall {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BadCall::Misaligned { field, address } => write!(f, "{field} is at byte {address:#x}, not at a word"),
            BadCall::OutOfBounds { field, start_word, end_word } => {
                write!(f, "{field} takes words {start_word}..{end_word}, which is outside DTCM")
            }
            BadCall::Overlap { a, b } => write!(f, "{a} and {b} share words"),
            BadCall::Value { field, value } => write!(f, "{field} cannot be {value}"),
            BadCall::TooManyTerms { terms } => write!(f, "a sum of {terms} terms does not fit its accumulator"),
        }
    }
}

impl core::error::Error for BadCall {}

/// Words `start..end` of DTCM, inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Name of the parameter, for messages.
    field: &'static str,
    start: u32,
    end: u32,
}

impl Span {
    /// First word.
    pub fn start(&self) -> u32 {
        self.start
    }
    /// First word after it; equal to `start` for a buffer that is not touched.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// `count` words from byte offset `address`, if they are in a DTCM of `words` words.
    pub(super) fn counted(words: usize, field: &'static str, address: u32, count: u32) -> Result<Span, BadCall> {
        Span::located(words, field, address, 0, count.into())
    }

    /// Words `first..end` counted from byte offset `address`, if they are in a DTCM of `words` words.
    pub(super) fn located(
        words: usize,
        field: &'static str,
        address: u32,
        first: i64,
        end: i64,
    ) -> Result<Span, BadCall> {
        if first >= end {
            return Ok(Span { field, start: 0, end: 0 });
        }
        if !address.is_multiple_of(4) {
            return Err(BadCall::Misaligned { field, address });
        }
        let base = i64::from(address / 4);
        let (start_word, end_word) = (base.saturating_add(first), base.saturating_add(end));
        if start_word < 0 || end_word > words as i64 || end_word > u32::MAX.into() {
            return Err(BadCall::OutOfBounds { field, start_word, end_word });
        }
        Ok(Span { field, start: start_word as u32, end: end_word as u32 })
    }
}
