//! A core's checks: the same answers without a word of explanation, which would cost kilobytes of instruction memory.

use core::num::NonZeroU32;

/// A kernel call must not run. (On the host the error says why.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadCall;

impl BadCall {
    /// Two buffers that must be apart share words.
    pub(crate) fn overlap(_: &Span, _: &Span) -> BadCall {
        BadCall
    }
    /// A parameter has a value that means nothing.
    pub(crate) fn value(_: &'static str, _: u32) -> BadCall {
        BadCall
    }
    /// A sum has more terms than an accumulator takes exactly.
    pub(crate) fn too_many_terms(_: u32) -> BadCall {
        BadCall
    }
}

/// Words of DTCM, inside it: the first in the lower half, one more than the end in the upper half. One register, also with an
/// error beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(NonZeroU32);

/// Words of the largest DTCM that a span can describe.
const WORDS_MAX: usize = 0xFFFE;

impl Span {
    /// First word.
    pub fn start(&self) -> u32 {
        self.0.get() & 0xFFFF
    }
    /// First word after it; equal to `start` for a buffer that is not touched.
    pub fn end(&self) -> u32 {
        (self.0.get() >> 16) - 1
    }

    /// `count` words from byte offset `address`, if they are in a DTCM of `words` words.
    #[inline(always)]
    pub(super) fn counted(words: usize, _: &'static str, address: u32, count: u32) -> Result<Span, BadCall> {
        let (start, words) = (address / 4, words.min(WORDS_MAX) as u32);
        if count == 0 {
            return NonZeroU32::new(1 << 16).map(Span).ok_or(BadCall);
        }
        if !address.is_multiple_of(4) || start > words || count > words - start {
            return Err(BadCall);
        }
        NonZeroU32::new((start + count + 1) << 16 | start).map(Span).ok_or(BadCall)
    }

    /// Words `first..end` counted from byte offset `address`, if they are in a DTCM of `words` words.
    #[inline(never)]
    pub(super) fn located(words: usize, _: &'static str, address: u32, first: i64, end: i64) -> Result<Span, BadCall> {
        if first >= end {
            return NonZeroU32::new(1 << 16).map(Span).ok_or(BadCall);
        }
        let base = i64::from(address / 4);
        if !address.is_multiple_of(4) || first < -base || end > words.min(WORDS_MAX) as i64 - base {
            return Err(BadCall);
        }
        let (start, end) = (base as u32 + first as u32, base as u32 + end as u32);
        NonZeroU32::new((end + 1) << 16 | start).map(Span).ok_or(BadCall)
    }
}
