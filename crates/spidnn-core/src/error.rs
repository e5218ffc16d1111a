//! Run-time errors: what a core tells the host before it stops.

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
    /// A peer did not answer: detail is its key base and the number of the block.
    PeerSilent = 9,
}

impl ErrorCode {
    /// The error with this number.
    pub fn from_number(number: u32) -> Option<ErrorCode> {
        use ErrorCode::*;
        [BadImage, BadVersion, BadConfig, BadRunBlock, BadProgram, BadCommand, BadTransfer, BadKernel, PeerSilent]
            .into_iter()
            .find(|e| *e as u32 == number)
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
        }
    }
}

/// An error on its way out of the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub code: ErrorCode,
    pub detail: [u32; 2],
}

impl Failure {
    pub fn new(code: ErrorCode, a: u32, b: u32) -> Failure {
        Failure { code, detail: [a, b] }
    }
}
