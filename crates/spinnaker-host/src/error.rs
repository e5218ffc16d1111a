//! What can go wrong between a host and a board.

use std::time::Duration;

use spinnaker_wire::scp::{CommandCode, ReturnCode};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::{AppId, ChipAddress, WireError};

use crate::FoundCore;

/// Why an operation on a board failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The operating system's answer.
    #[error("{board}: {source}")]
    Io {
        /// The board's address.
        board: String,
        /// What it said.
        source: std::io::Error,
    },
    /// The computer at that address says that nobody listens.
    #[error(
        "{board}: the computer there says that nothing listens on that port. Check address and port; a virtual board is started by `spidnn board`"
    )]
    NoListener {
        /// The board's address.
        board: String,
    },
    /// No address by that name.
    #[error("{host}: no such host")]
    NoSuchHost {
        /// The name.
        host: String,
    },
    /// No answer, however often it was sent.
    #[error(
        "{board} does not answer: {command} to {destination} was sent {tries} times in {} ms. Is it powered, booted and reached by this network?",
        waited.as_millis()
    )]
    Silent {
        /// The board's address.
        board: String,
        /// What was asked.
        command: CommandCode,
        /// Of whom.
        destination: Endpoint,
        /// How often.
        tries: u32,
        /// For how long.
        waited: Duration,
    },
    /// The program for transfers has stopped answering.
    #[error(
        "{board}: the program for transfers on {gate} has not answered for {} ms. The monitor's own commands may still work; start the board again if not",
        waited.as_millis()
    )]
    BulkSilent {
        /// The board's address.
        board: String,
        /// The program's core.
        gate: Endpoint,
        /// For how long.
        waited: Duration,
    },
    /// The answer is an error.
    #[error("{destination} answers {command} with: {code}")]
    Refused {
        /// What was asked.
        command: CommandCode,
        /// Of whom.
        destination: Endpoint,
        /// The answer.
        code: ReturnCode,
    },
    /// The answer says "done" but has not the data that are due, by which SC&MP 4.0.0 says that it failed.
    #[error("{destination} fails to do {command}: {got_bytes} bytes where {needed_bytes} are due")]
    NoData {
        /// What was asked.
        command: CommandCode,
        /// Of whom.
        destination: Endpoint,
        /// Bytes that are due.
        needed_bytes: usize,
        /// Bytes that came.
        got_bytes: usize,
    },
    /// A copy from chip to chip differs from what was sent.
    #[error("chip {chip} has copied another application than its neighbour was loaded with")]
    CopyDiffers {
        /// The chip.
        chip: ChipAddress,
    },
    /// A format does not hold what it should.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// There is something, but not what can be worked with.
    #[error("{board}: {name} {}.{}.{}: needs SC&MP 3 or 4", version.0, version.1, version.2)]
    Version {
        /// The board's address.
        board: String,
        /// What answers.
        name: String,
        /// Its version.
        version: (u16, u16, u16),
    },
    /// The monitor answers, but does not come up.
    #[error("{board}: the monitor still sets up its network after {} s", waited.as_secs())]
    NotReady {
        /// The board's address.
        board: String,
        /// For how long it was asked.
        waited: Duration,
    },
    /// No memory, or no routing entries.
    #[error("chip {chip} has not {wanted}")]
    Exhausted {
        /// The chip.
        chip: ChipAddress,
        /// What was wanted.
        wanted: String,
    },
    /// An argument that makes no sense.
    #[error("{0}")]
    Argument(String),
    /// A core has an application already.
    #[error("chip {chip} core {core} is taken by {app}: stop that, or choose other cores")]
    CoreTaken {
        /// The chip.
        chip: ChipAddress,
        /// The core.
        core: u8,
        /// What it has.
        app: AppId,
    },
    /// The monitor has not started an application where it should.
    #[error("chip {chip} core {core} was not started as {app}: the monitor says nothing of why")]
    NotStarted {
        /// The chip.
        chip: ChipAddress,
        /// The core.
        core: u8,
        /// What it should be.
        app: AppId,
    },
    /// Cores have stopped that were to go on.
    #[error(
        "{} cores of {app} have stopped{}",
        cores.len(),
        cores.first().map(|core| format!(", the first: {core}")).unwrap_or_default()
    )]
    CoresFailed {
        /// The application.
        app: AppId,
        /// The cores, with their registers.
        cores: Vec<FoundCore>,
    },
    /// Cores did not come into a state.
    #[error("{got} of {wanted} cores of the application are {state} after {} ms", waited.as_millis())]
    Waiting {
        /// The state.
        state: String,
        /// How many cores were to be there.
        wanted: u32,
        /// How many are.
        got: u32,
        /// For how long it was asked.
        waited: Duration,
    },
}

/// The result of an operation on a board.
pub type Result<T> = std::result::Result<T, HostError>;

impl HostError {
    /// Whether the way to the board is gone, or the board itself: nothing that is asked of it will be answered.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::NoListener { .. } | Self::Io { .. })
    }

    /// What the operating system says of a board.
    pub(crate) fn of_io(board: String, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::ConnectionRefused => Self::NoListener { board },
            _ => Self::Io { board, source },
        }
    }
}
