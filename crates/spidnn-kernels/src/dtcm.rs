//! A core's data memory as kernels see it: checked extents of buffers, and words that may be shared.
//!
//! The panic contract: [`crate::KernelCall::check`] looks at every buffer, count and code of a call;
//! a call that it accepts does not panic when run on a DTCM image of that many words.
//!
//! Counts of words are `u32` and saturate: more than any DTCM holds is more than any DTCM holds.

use core::cell::Cell;

#[cfg(any(test, feature = "std"))]
mod detail;
#[cfg(not(any(test, feature = "std")))]
mod plain;

#[cfg(any(test, feature = "std"))]
pub use detail::{BadCall, Span};
#[cfg(not(any(test, feature = "std")))]
pub use plain::{BadCall, Span};

/// Product of two counts; saturates.
#[cfg_attr(target_arch = "arm", inline(never))]
pub fn times(a: u32, b: u32) -> u32 {
    // The usual case takes an instruction of a core where the other calls a function.
    if (a | b) >> 16 == 0 {
        return a * b;
    }
    let product = u64::from(a) * u64::from(b);
    if product >> 32 == 0 { product as u32 } else { u32::MAX }
}

impl Span {
    /// An error if both hold a common word.
    #[cfg_attr(target_arch = "arm", inline(never))]
    pub fn apart_from(&self, others: &[Span]) -> Result<(), BadCall> {
        for other in others {
            if self.overlaps(other) {
                return Err(BadCall::overlap(self, other));
            }
        }
        Ok(())
    }
    /// Whether both are the same words.
    pub fn same(&self, other: &Span) -> bool {
        self.start() == other.start() && self.end() == other.end()
    }
    /// An error if both hold a common word, unless they are the same words (an operation in place).
    #[cfg_attr(target_arch = "arm", inline(never))]
    pub fn apart_or_same(&self, other: &Span) -> Result<(), BadCall> {
        if self.overlaps(other) && !self.same(other) { Err(BadCall::overlap(self, other)) } else { Ok(()) }
    }
    /// Whether both hold a common word.
    pub fn overlaps(&self, other: &Span) -> bool {
        let (start, end) = (self.start().max(other.start()), self.end().min(other.end()));
        // An empty span begins where it ends.
        start < end
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
    #[cfg_attr(target_arch = "arm", inline(never))]
    pub fn span(&self, field: &'static str, address: u32, count: u32) -> Result<Span, BadCall> {
        Span::counted(self.words, field, address, count)
    }

    /// [`Bounds::span`] if `address` is not [`crate::call::NONE`], else no words.
    pub fn optional(&self, field: &'static str, address: u32, count: u32) -> Result<Span, BadCall> {
        self.span(field, address, if address == crate::call::NONE { 0 } else { count })
    }

    /// `rows` rows of `cols` words, `stride` words from row to row.
    #[cfg_attr(target_arch = "arm", inline(never))]
    pub fn rows(&self, field: &'static str, address: u32, rows: u32, cols: u32, stride: u32) -> Result<Span, BadCall> {
        self.span(field, address, extent(rows, cols, stride))
    }

    /// Words `first..end` counted from byte offset `address`; `first` may be negative.
    pub fn part(&self, field: &'static str, address: u32, first: i64, end: i64) -> Result<Span, BadCall> {
        Span::located(self.words, field, address, first, end)
    }
}

/// Words from the first to the last of `rows` rows of `cols` words, `stride` words from row to row.
#[cfg_attr(target_arch = "arm", inline(never))]
pub fn extent(rows: u32, cols: u32, stride: u32) -> u32 {
    if rows == 0 || cols == 0 { 0 } else { times(rows - 1, stride).saturating_add(cols) }
}

/// Words from the start of a picture to row `row`, where `first` is the row at the start.
#[cfg_attr(target_arch = "arm", inline(never))]
pub fn row_offset(row: i64, first: i64, row_words: u32) -> i64 {
    // Rows beyond 2^31 are as far out as any.
    (row - first).clamp(i32::MIN.into(), i32::MAX.into()) * i64::from(row_words)
}

/// An error unless `value` is one of the numbers below `end`.
pub fn below(field: &'static str, value: u32, end: u32) -> Result<(), BadCall> {
    if value < end { Ok(()) } else { Err(BadCall::value(field, value)) }
}

/// An error if `value` is zero.
pub fn nonzero(field: &'static str, value: u32) -> Result<(), BadCall> {
    if value != 0 { Ok(()) } else { Err(BadCall::value(field, value)) }
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
/// If they are not in `cells` (a call that was not checked); on a core, where the runtime has checked the call, nothing looks again.
#[inline(always)]
pub fn words(cells: &[Cell<u32>], address: u32, count: usize) -> &[Cell<u32>] {
    if count == 0 {
        return &[];
    }
    part(cells, address as usize / 4, count)
}

/// `count` words from word `start` on. Panics as [`words`].
#[inline(always)]
pub fn part(cells: &[Cell<u32>], start: usize, count: usize) -> &[Cell<u32>] {
    #[cfg(target_arch = "arm")]
    // SAFETY: the call was checked: its buffers are inside the memory.
    return unsafe { core::slice::from_raw_parts(cells.as_ptr().wrapping_add(start), count) };
    #[cfg(not(target_arch = "arm"))]
    return &cells[start..][..count];
}

/// One word. Panics as [`words`].
#[inline(always)]
pub fn word(cells: &[Cell<u32>], index: usize) -> &Cell<u32> {
    &part(cells, index, 1)[0]
}
