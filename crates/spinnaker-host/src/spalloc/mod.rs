//! Machines from an allocation server (spalloc): boards of a large machine for a while.
//!
//! A [`Job`] is a claim on boards. [`Job::create`] asks a [`Server`] for what a [`JobRequest`] says, waits until the boards
//! have power, and keeps the claim alive on a thread of its own until the job is dropped or destroyed. The boards are not booted.
//! Both kinds of server stand behind it: the classic one with lines of JSON over TCP ([`classic::Client`] has its protocol in
//! full), and the newer HTTP service, whose WebSocket carries UDP to boards that are in another network ([`Job::connect`]).
//!
//! A claim ends in one of four ways. The program destroys it or drops the [`Job`]; the server takes it away and says why
//! ([`SpallocError::Destroyed`]); the server is not heard of for longer than the claim lasts ([`SpallocError::Lost`]); or the
//! process is killed: then nobody keeps the claim alive, and the server takes the boards back after the request's `keepalive`,
//! 60 seconds unless said otherwise.
//!
//! ```no_run
//! use spinnaker_host::spalloc::{Job, JobRequest, Server, Want};
//!
//! # async fn example() -> Result<(), spinnaker_host::spalloc::SpallocError> {
//! let server = Server::classic("spalloc.example.org");
//! let mut job = Job::create(&server, &JobRequest::new(Want::Boards(3))?, |progress| println!("{progress}")).await?;
//! for board in &job.machine_info().boards {
//!     println!("chip {} is at {}", board.chip, board.host);
//! }
//! job.destroy("finished").await?;
//! # Ok(())
//! # }
//! ```

mod channel;
pub mod classic;
mod error;
mod geometry;
mod job;
mod keeper;
mod link;
mod request;
mod service;
mod version;

pub use channel::{BoardChannel, BoardListener};
pub use error::{Result, SpallocError};
pub use geometry::{BoardConnection, BoardPlace, MachineInfo, PhysicalPlace};
pub use job::Job;
pub use keeper::{Phase, Progress};
pub use link::JobLink;
pub use request::{JobRequest, Login, Server, Want};
pub use version::ServerVersion;
