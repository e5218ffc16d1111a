//! What can go wrong between a client and an allocation server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::version::ServerVersion;

/// The outcome of a step with a server.
pub type Result<T> = std::result::Result<T, SpallocError>;

/// Why there is no machine from a server. Clones share their source.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpallocError {
    /// Nobody accepts connections there, or the connection broke.
    #[error(
        "no spalloc server at {server}: {source}. Check the name and the port, and that this computer is in the server's network"
    )]
    Unreachable {
        /// Host and port, or URL.
        server: String,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// The connection stands, but the answer does not come.
    #[error("the spalloc server at {server} has not answered `{command}` within {} s", waited.as_secs_f64())]
    Silent {
        /// Host and port, or URL.
        server: String,
        /// What was asked.
        command: String,
        /// For how long it was waited.
        waited: Duration,
    },
    /// The server closed the connection, which classic servers do on commands that they cannot make sense of.
    #[error("the spalloc server at {server} closed the connection during `{command}`")]
    Closed {
        /// Host and port, or URL.
        server: String,
        /// What was asked.
        command: String,
    },
    /// A server of another version.
    #[error(
        "the spalloc server at {server} has version {found}; this client speaks with {oldest} up to {newest_major}.x"
    )]
    Version {
        /// Host and port.
        server: String,
        /// What it says of itself.
        found: String,
        /// The oldest version that is understood.
        oldest: ServerVersion,
        /// The newest major version that is understood.
        newest_major: u32,
    },
    /// What came is not of the protocol: there is something else at that port, or a faulty server.
    #[error("{server} answers `{command}` with {found}, where {expected} is expected. Is it a spalloc server?")]
    Protocol {
        /// Host and port, or URL.
        server: String,
        /// What was asked.
        command: String,
        /// What came, cut short.
        found: String,
        /// What should have come.
        expected: String,
    },
    /// The server says no.
    #[error("the spalloc server at {server} refuses `{command}`: {message}")]
    Refused {
        /// Host and port, or URL.
        server: String,
        /// What was asked.
        command: String,
        /// The server's words.
        message: String,
    },
    /// The service does not let this user in.
    #[error(
        "the spalloc service at {server} does not let {user} in: {message}. Give user and password in the URL or in SPALLOC_USER and SPALLOC_PASSWORD, or a token in SPALLOC_TOKEN"
    )]
    Login {
        /// URL without the password.
        server: String,
        /// Who wanted in.
        user: String,
        /// The server's words.
        message: String,
    },
    /// The request contradicts itself, or the server cannot be asked for it.
    #[error("this request for boards cannot be sent: {0}")]
    Request(String),
    /// The server has no machine by that name.
    #[error("the spalloc server at {server} has no machine `{machine}`; it has {}", names(.known))]
    NoSuchMachine {
        /// Host and port, or URL.
        server: String,
        /// The name that was asked for.
        machine: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The server destroyed the job before it had boards: it has no machine that could ever fit.
    #[error("{server} cannot give {wanted}: {reason}. Ask for less, for another machine, or with other tags")]
    Impossible {
        /// Host and port, or URL.
        server: String,
        /// What was asked for.
        wanted: String,
        /// The server's words.
        reason: String,
    },
    /// The server took the job away.
    #[error("the server destroyed job {job}: {reason}")]
    Destroyed {
        /// The job's number or URL.
        job: String,
        /// The server's words.
        reason: String,
    },
    /// The server cannot be reached for longer than it keeps the job.
    #[error("the spalloc server at {server} was lost for {} s, so job {job} has expired. Last error: {cause}", silence.as_secs_f64().round())]
    Lost {
        /// Host and port, or URL.
        server: String,
        /// The job's number or URL.
        job: String,
        /// Since when nothing was heard.
        silence: Duration,
        /// What the last attempt ended with.
        cause: String,
    },
    /// No boards became free in time. The job has been given up.
    #[error("{wanted} did not become free within {} s; the job was given up. Wait longer, or ask for less", waited.as_secs_f64())]
    Queue {
        /// What was asked for.
        wanted: String,
        /// For how long it was waited.
        waited: Duration,
    },
    /// The boards did not get power in time.
    #[error("the boards of job {job} were not switched {} within {} s", if *.on { "on" } else { "off" }, waited.as_secs_f64())]
    Power {
        /// The job's number or URL.
        job: String,
        /// Whether they should have gone on.
        on: bool,
        /// For how long it was waited.
        waited: Duration,
    },
    /// The job has no such board.
    #[error("job {job} has no board at chip {chip}: its boards are at {}", names(.known))]
    NoSuchBoard {
        /// The job's number or URL.
        job: String,
        /// The chip that was asked for.
        chip: String,
        /// The Ethernet chips that there are.
        known: Vec<String>,
    },
    /// The WebSocket that carries UDP is not there, or the server does not open a channel on it.
    #[error("no way to the boards through {server}: {message}")]
    Proxy {
        /// URL.
        server: String,
        /// What went wrong.
        message: String,
    },
    /// A socket to a board.
    #[error("board {board}: {source}")]
    Board {
        /// Its address.
        board: String,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// The job was destroyed by this program.
    #[error("job {job} was destroyed by this program")]
    Over {
        /// The job's number or URL.
        job: String,
    },
    /// The operating system has no thread for keeping the job alive.
    #[error("the job cannot be kept alive: {0}")]
    Thread(Arc<io::Error>),
}

impl SpallocError {
    pub(super) fn unreachable(server: &str, source: io::Error) -> Self {
        Self::Unreachable { server: server.to_owned(), source: Arc::new(source) }
    }

    /// A part of the answer is not what it should be; what came is cut short.
    pub(super) fn protocol(server: &str, command: &str, found: impl AsRef<[u8]>, expected: &str) -> Self {
        Self::Protocol {
            server: server.to_owned(),
            command: command.to_owned(),
            found: excerpt(found.as_ref()),
            expected: expected.to_owned(),
        }
    }

    /// Whether another connection may go better.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. } | Self::Closed { .. })
    }
}

/// The beginning of what came, fit for one line.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 80;
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    let start = &bytes[..bytes.len().min(4 * CHARACTERS_MAX)];
    let text: String = String::from_utf8_lossy(start)
        .chars()
        .map(|c| if c.is_control() || c == char::REPLACEMENT_CHARACTER { '.' } else { c })
        .take(CHARACTERS_MAX)
        .collect();
    let cut = if text.len() < bytes.len() { "..." } else { "" };
    format!("`{text}{cut}`")
}

fn names(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}
