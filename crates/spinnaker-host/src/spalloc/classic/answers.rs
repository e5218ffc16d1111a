//! What a classic server tells.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::spalloc::geometry::{BoardPlace, PhysicalPlace};

/// The number of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "u32")]
pub enum JobState {
    /// The server does not know it (any longer).
    Unknown,
    /// Boards are not free yet.
    Queued,
    /// It has boards, and they are being switched.
    Power,
    /// It has boards with power, not booted (or without, if they were switched off).
    Ready,
    /// It is over.
    Destroyed,
}

impl From<u32> for JobState {
    fn from(number: u32) -> Self {
        match number {
            1 => Self::Queued,
            2 => Self::Power,
            3 => Self::Ready,
            4 => Self::Destroyed,
            _ => Self::Unknown,
        }
    }
}

/// The answer to `get_job_state`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct JobStatus {
    /// Where it is in its life.
    pub state: JobState,
    /// Whether its boards are, or are being, switched on; `None` while it has none.
    #[serde(default)]
    pub power: Option<bool>,
    /// Seconds that it is kept without hearing of the client; `None` for ever, or if it is over.
    #[serde(default)]
    pub keepalive: Option<f64>,
    /// Why it was destroyed.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it was created, in seconds since 1970.
    #[serde(default)]
    pub start_time: Option<f64>,
    /// The address from which it was last kept alive.
    #[serde(default)]
    pub keepalivehost: Option<String>,
}

/// One of the jobs that `list_jobs` lists.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct JobRecord {
    /// Its number.
    pub job_id: JobId,
    /// In whose name.
    pub owner: String,
    /// When it was created, in seconds since 1970.
    #[serde(default)]
    pub start_time: Option<f64>,
    /// Seconds that it is kept without hearing of the client.
    #[serde(default)]
    pub keepalive: Option<f64>,
    /// Where it is in its life.
    pub state: JobState,
    /// Whether its boards are, or are being, switched on.
    #[serde(default)]
    pub power: Option<bool>,
    /// The positional arguments of its `create_job`.
    #[serde(default)]
    pub args: Vec<Value>,
    /// The named arguments of its `create_job`.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// The machine that it is on.
    #[serde(default)]
    pub allocated_machine_name: Option<String>,
    /// Its boards.
    #[serde(default)]
    pub boards: Option<Vec<BoardPlace>>,
    /// The address from which it was last kept alive.
    #[serde(default)]
    pub keepalivehost: Option<String>,
}

/// One of the machines that `list_machines` lists.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MachineRecord {
    /// Its name.
    pub name: String,
    /// What jobs can choose it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Columns of triads.
    pub width: u32,
    /// Rows of triads.
    pub height: u32,
    /// Boards that are not used.
    #[serde(default)]
    pub dead_boards: Vec<BoardPlace>,
    /// Links that are not used: board (x, y, z) and direction (0 east, then counter-clockwise).
    #[serde(default)]
    pub dead_links: Vec<(u32, u32, u32, u32)>,
}

/// What `where_is` is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A board of a machine by its logical place.
    Board(String, BoardPlace),
    /// A board of a machine by its physical place.
    Physical(String, PhysicalPlace),
    /// A chip (x, y) of a whole machine.
    Chip(String, u32, u32),
    /// A chip (x, y) of a job.
    JobChip(JobId, u32, u32),
}

/// The answer to `where_is`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Location {
    /// The machine.
    pub machine: String,
    /// The board's logical place.
    pub logical: BoardPlace,
    /// The board's physical place.
    pub physical: PhysicalPlace,
    /// The chip in the whole machine.
    pub chip: (u32, u32),
    /// The chip on its board.
    pub board_chip: (u32, u32),
    /// The job that has the board.
    #[serde(default)]
    pub job_id: Option<JobId>,
    /// The chip in that job.
    #[serde(default)]
    pub job_chip: Option<(u32, u32)>,
}

/// What a server tells on its own, once it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// Something about these jobs has changed.
    Jobs(Vec<JobId>),
    /// Something about these machines has changed.
    Machines(Vec<String>),
}
