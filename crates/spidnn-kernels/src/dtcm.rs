//! A core's data memory as kernels see it: checked extents of buffers, and words that may be shared.
//!
//! The panic contract: [`crate::KernelCall::check`] looks at every buffer, count and code of a call;
//! a call that it accepts does not panic when run on a DTCM image of that many words.

use core::cell::Cell;

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
        start_word: i128,
        /// First word after the buffer.
        end_word: i128,
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
        terms: u64,
    },
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
    pub field: &'static str,
    /// First word.
    pub start: usize,
    /// First word after it; equal to `start` for a buffer that is not touched.
    pub end: usize,
}

impl Span {
    /// Whether both hold a common word.
    pub fn overlaps(&self, other: &Span) -> bool {
        self.start < self.end && other.start < other.end && self.start < other.end && other.start < self.end
    }
    /// An error if both hold a common word.
    pub fn apart_from(&self, others: &[Span]) -> Result<(), BadCall> {
        match others.iter().find(|o| self.overlaps(o)) {
            Some(o) => Err(BadCall::Overlap { a: self.field, b: o.field }),
            None => Ok(()),
        }
    }
    /// An error if both hold a common word, unless they are the same words (an operation in place).
    pub fn apart_or_same(&self, other: &Span) -> Result<(), BadCall> {
        if (self.start, self.end) == (other.start, other.end) { Ok(()) } else { self.apart_from(&[*other]) }
    }
}

/// Checks buffers against a DTCM of a given size.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Words of the DTCM.
    pub words: usize,
}

impl Bounds {
    /// `count` words from byte offset `address`. An empty buffer may be anywhere.
    pub fn span(&self, field: &'static str, address: u32, count: u64) -> Result<Span, BadCall> {
        self.part(field, address, 0, count.into())
    }

    /// `rows` rows of `cols` words, `stride` words from row to row.
    pub fn rows(&self, field: &'static str, address: u32, rows: u32, cols: u32, stride: u32) -> Result<Span, BadCall> {
        if rows == 0 || cols == 0 {
            return self.span(field, address, 0);
        }
        // At most 2^64 - 2^33 + 2^32: no overflow.
        self.span(field, address, u64::from(rows - 1) * u64::from(stride) + u64::from(cols))
    }

    /// Words `first..end` counted from byte offset `address`; `first` may be negative.
    pub fn part(&self, field: &'static str, address: u32, first: i128, end: i128) -> Result<Span, BadCall> {
        if first >= end {
            return Ok(Span { field, start: 0, end: 0 });
        }
        if !address.is_multiple_of(4) {
            return Err(BadCall::Misaligned { field, address });
        }
        let base = i128::from(address / 4);
        let (start_word, end_word) = (base.saturating_add(first), base.saturating_add(end));
        if start_word < 0 || end_word > self.words as i128 {
            return Err(BadCall::OutOfBounds { field, start_word, end_word });
        }
        Ok(Span { field, start: start_word as usize, end: end_word as usize })
    }
}

/// An error unless `value` is one of the numbers below `end`.
pub fn below(field: &'static str, value: u32, end: u32) -> Result<(), BadCall> {
    if value < end { Ok(()) } else { Err(BadCall::Value { field, value }) }
}

/// An error if `value` is zero.
pub fn nonzero(field: &'static str, value: u32) -> Result<(), BadCall> {
    if value != 0 { Ok(()) } else { Err(BadCall::Value { field, value }) }
}

/// Looks again whether a call may run: on the host, where vector forms rely on it. On a core the runtime has just looked.
///
/// # Panics
/// On the host, if it may not.
pub fn checked(call: &impl crate::Kernel, words: usize) {
    if cfg!(any(test, feature = "std")) {
        assert!(call.check(words).is_ok(), "a kernel call that was not checked");
    }
}

/// The words of a DTCM image as shared cells: buffers of one call may overlap where its rules allow.
pub fn cells(dtcm: &mut [u32]) -> &[Cell<u32>] {
    Cell::from_mut(dtcm).as_slice_of_cells()
}

/// `count` words from byte offset `address` on.
///
/// # Panics
/// If they are not in `cells` (a call that was not checked).
pub fn words(cells: &[Cell<u32>], address: u32, count: usize) -> &[Cell<u32>] {
    if count == 0 {
        return &[];
    }
    &cells[address as usize / 4..][..count]
}
