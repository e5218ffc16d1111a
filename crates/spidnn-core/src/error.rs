//! Run-time errors: what a core tells the host before it stops.

use core::fmt;

/// Why a core stopped. The number and two words of detail travel to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    /// The image is not one: detail is the first word and its address.
    BadImage = 1,
    /// The image is of another version: detail is the version found and the version expected.
    BadVersion = 2,
    /// The configuration is out of range.
    BadConfig = 3,
    /// The run block is not one of this version: detail is its first word and its address.
    BadRunBlock = 4,
    /// The image has no such program: detail is its number.
    BadProgram = 5,
    /// A command that makes no sense: detail is its first word, and its place in the segment.
    BadCommand = 6,
    /// A transfer outside the memories: detail is the SDRAM and DTCM address.
    BadTransfer = 7,
    /// A kernel call that would leave DTCM or has wrong counts: detail is the kernel's number, and its place.
    BadKernel = 8,
    /// A peer did not answer: detail is its key base and the number of the block (or of the barrier).
    PeerSilent = 9,
    /// A run does not come to an end: detail is the first word of the command where it was given up, and its place.
    TooLong = 10,
    /// The firmware does not have this kernel: detail is its number.
    NoKernel = 11,
    /// A transfer between the memories failed: detail is the status of the DMA controller.
    DmaFailed = 12,
    /// The firmware itself is wrong: detail is the line; the file is in the core's text.
    Panicked = 13,
}

impl ErrorCode {
    /// The error with this number.
    pub fn from_number(number: u32) -> Option<ErrorCode> {
        use ErrorCode::*;
        let all = [
            BadImage,
            BadVersion,
            BadConfig,
            BadRunBlock,
            BadProgram,
            BadCommand,
            BadTransfer,
            BadKernel,
            PeerSilent,
            TooLong,
            NoKernel,
            DmaFailed,
            Panicked,
        ];
        all.into_iter().find(|e| *e as u32 == number)
    }

    /// What it means, in words for people.
    pub fn meaning(self) -> &'static str {
        match self {
            ErrorCode::BadImage => "the command list in memory is not one (first word, address)",
            ErrorCode::BadVersion => {
                "the command list is of another version (found, expected): use one version of SpiDNN"
            }
            ErrorCode::BadConfig => "the configuration of the core is out of range",
            ErrorCode::BadRunBlock => "the run block is not one of this version (first word, address)",
            ErrorCode::BadProgram => "the command list has no such program (number)",
            ErrorCode::BadCommand => "a command makes no sense (first word, place)",
            ErrorCode::BadTransfer => "a transfer leaves the memories (SDRAM address, DTCM address)",
            ErrorCode::BadKernel => "a kernel call leaves the local memory (kernel, place)",
            ErrorCode::PeerSilent => "a neighbour in the tree of replicas did not answer (its key, block)",
            ErrorCode::NoKernel => "the firmware on this core does not have a kernel that the program calls (number)",
            ErrorCode::DmaFailed => "a transfer between the memories failed (status of the DMA controller)",
            ErrorCode::Panicked => "the firmware met a case that it does not know: a mistake in SpiDNN (line)",
            ErrorCode::TooLong => "a run does not come to an end (first word of a command, place)",
        }
    }
}

/// An error with its two words of detail. Prints as one sentence with the values in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What.
    pub code: ErrorCode,
    /// Two words that say more: see [`ErrorCode`].
    pub detail: [u32; 2],
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, a: u32, b: u32) -> Failure {
        Failure { code, detail: [a, b] }
    }

    /// What a core has told the host by [`crate::Core::fail`]; `None` for a code that is not the runtime's.
    pub fn from_words(code: u32, detail: [u32; 2]) -> Option<Failure> {
        ErrorCode::from_number(code).map(|code| Failure { code, detail })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.detail;
        match self.code {
            ErrorCode::BadImage => write!(f, "the command list at {b:#x} is not one ({a:#x})"),
            ErrorCode::BadVersion => {
                write!(f, "the command list has version {a}, the runtime reads {b}: use one version of SpiDNN")
            }
            ErrorCode::BadConfig => write!(f, "the core's configuration at {b:#x} is out of range ({a:#x})"),
            ErrorCode::BadRunBlock => write!(f, "the run block at {b:#x} is not one of this version ({a:#x})"),
            ErrorCode::BadProgram => write!(f, "the command list has no program {a}"),
            ErrorCode::BadCommand => write!(f, "the command {a:#010x} at word {b} of its segment makes no sense"),
            ErrorCode::BadTransfer => {
                write!(
                    f,
                    "a transfer between SDRAM {a:#x} and local memory {b:#x} leaves the memories or is not aligned"
                )
            }
            ErrorCode::BadKernel => write!(f, "kernel {a} at word {b} of its segment refuses its parameters"),
            ErrorCode::PeerSilent => {
                let (chip, core) = (a >> 20, a >> 15 & 31);
                write!(f, "core {core} of chip number {chip} in the tree of replicas did not answer (block {b})")
            }
            ErrorCode::NoKernel => write!(f, "the firmware on this core does not have kernel {a}"),
            ErrorCode::DmaFailed => write!(f, "a transfer between the memories failed (DMA status {a:#x})"),
            ErrorCode::Panicked => write!(f, "the firmware met a case that it does not know, at line {a}"),
            ErrorCode::TooLong => write!(f, "the run does not come to an end (command {a:#010x} at word {b})"),
        }
    }
}

impl core::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn failures_survive_their_words_and_name_their_values() {
        for code in 1..=13 {
            let failure = Failure::from_words(code, [0x0051_0000, 8]).expect("a known code");
            assert_eq!(failure.code as u32, code);
            let text = failure.to_string();
            assert!(text.contains('8') || text.contains("5308416") || text.contains("510000"), "{text}");
            assert!(!failure.code.meaning().is_empty());
        }
        for unknown in [0, 14, u32::MAX] {
            assert_eq!(Failure::from_words(unknown, [0, 0]), None);
        }
        let silent = Failure::new(ErrorCode::PeerSilent, 5 << 20 | 17 << 15, 3).to_string();
        assert_eq!(silent, "core 17 of chip number 5 in the tree of replicas did not answer (block 3)");
    }
}
