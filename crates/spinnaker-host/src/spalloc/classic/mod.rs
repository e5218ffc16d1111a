//! The protocol of the classic server: lines of JSON over TCP.
//!
//! A [`Client`] is one connection. It has a method for each command, and sorts out the notifications that come in between. A job is
//! not bound to the connection that created it: any connection can ask for it by its number.

mod answers;
mod line;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

pub use answers::{JobId, JobRecord, JobState, JobStatus, Location, MachineRecord, Notification, Place};
use line::LineReader;

use super::error::{Result, SpallocError, excerpt};
use super::geometry::{BoardPlace, MachineAnswer, MachineInfo, PhysicalPlace};
use super::request::{JobRequest, Server};
use super::version::ServerVersion;

/// For how long a connection is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long an answer is awaited: servers give them at once, but may be busy with others.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Notifications that are kept until somebody asks; older ones are forgotten.
const NOTIFICATIONS_MAX: usize = 256;

/// A connection to a classic server.
pub struct Client {
    /// Host and port, for messages.
    server: String,
    version: ServerVersion,
    lines: LineReader<OwnedReadHalf>,
    out: OwnedWriteHalf,
    notifications: VecDeque<Notification>,
    /// Set while an answer is due. If it still is when the next command comes, a call was abandoned in between, and the next answer would
    /// not be that command's.
    in_call: bool,
}

impl Client {
    /// Connects, and asks for the version.
    ///
    /// # Errors
    /// [`SpallocError::Unreachable`], [`SpallocError::Version`], and those of any command.
    pub async fn connect(host: &str, port: u16) -> Result<Self> {
        let server = Server::Classic { host: host.to_owned(), port }.to_string();
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await {
            Ok(stream) => stream,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s")),
        };
        let stream = stream.map_err(|source| SpallocError::unreachable(&server, source))?;
        // Commands are small, and each waits for its answer.
        stream.set_nodelay(true).map_err(|source| SpallocError::unreachable(&server, source))?;
        let (read, out) = stream.into_split();
        let mut client = Self {
            server,
            version: ServerVersion::OLDEST,
            lines: LineReader::new(read),
            out,
            notifications: VecDeque::new(),
            in_call: false,
        };
        let found: String = client.ask("version", vec![], Map::new(), "a version").await?;
        client.version = match found.parse::<ServerVersion>() {
            Ok(version) if version.is_understood() => version,
            _ => {
                let found = excerpt(found.as_bytes());
                return Err(SpallocError::Version {
                    server: client.server,
                    found,
                    oldest: ServerVersion::OLDEST,
                    newest_major: ServerVersion::NEWEST.0,
                });
            }
        };
        Ok(client)
    }

    /// The server's version.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// The server's host and port.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Asks for a job. It exists from then on, in whatever state, and dies if it is not kept alive. Where the answer is lost, so is the
    /// job's number, and the job ends with its keepalive.
    ///
    /// # Errors
    /// [`SpallocError::Request`] without asking; those of any command.
    pub async fn create_job(&mut self, request: &JobRequest) -> Result<JobId> {
        request.check()?;
        let (positional, named) = request.classic_arguments();
        self.ask("create_job", positional, named, "a job's number").await
    }

    /// Keeps a job alive. All commands about a job do.
    ///
    /// # Errors
    /// Those of any command: [`SpallocError::Silent`], [`SpallocError::Closed`], [`SpallocError::Unreachable`] if the connection is lost
    /// (connect again: the job lives on), [`SpallocError::Refused`], [`SpallocError::Protocol`].
    pub async fn job_keepalive(&mut self, job: JobId) -> Result<()> {
        self.order("job_keepalive", vec![json!(job)], Map::new()).await
    }

    /// The state of a job.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn get_job_state(&mut self, job: JobId) -> Result<JobStatus> {
        self.ask("get_job_state", vec![json!(job)], Map::new(), "a job's state").await
    }

    /// The machine of a job; `None` while it has no boards.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn get_job_machine_info(&mut self, job: JobId) -> Result<Option<MachineInfo>> {
        const COMMAND: &str = "get_job_machine_info";
        let answer: MachineAnswer = self.ask(COMMAND, vec![json!(job)], Map::new(), "a job's machine").await?;
        answer.info(None).map_err(|found| SpallocError::protocol(&self.server, COMMAND, found, "a job's machine"))
    }

    /// Switches a job's boards on; those that are on are reset. Its state is [`JobState::Power`] until it is done.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn power_on_job_boards(&mut self, job: JobId) -> Result<()> {
        self.order("power_on_job_boards", vec![json!(job)], Map::new()).await
    }

    /// Switches a job's boards off. Its state is [`JobState::Power`] until it is done.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn power_off_job_boards(&mut self, job: JobId) -> Result<()> {
        self.order("power_off_job_boards", vec![json!(job)], Map::new()).await
    }

    /// Ends a job.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn destroy_job(&mut self, job: JobId, reason: &str) -> Result<()> {
        self.order("destroy_job", vec![json!(job), json!(reason)], Map::new()).await
    }

    /// Has the server tell of changes of a job, or of all jobs: [`Self::notification`].
    ///
    /// # Errors
    /// Those of any command.
    pub async fn notify_job(&mut self, job: Option<JobId>) -> Result<()> {
        self.order("notify_job", vec![json!(job)], Map::new()).await
    }

    /// Ends what [`Self::notify_job`] began.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn no_notify_job(&mut self, job: Option<JobId>) -> Result<()> {
        self.order("no_notify_job", vec![json!(job)], Map::new()).await
    }

    /// Has the server tell of changes of a machine, or of all machines: [`Self::notification`].
    ///
    /// # Errors
    /// Those of any command.
    pub async fn notify_machine(&mut self, machine: Option<&str>) -> Result<()> {
        self.order("notify_machine", vec![json!(machine)], Map::new()).await
    }

    /// Ends what [`Self::notify_machine`] began.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn no_notify_machine(&mut self, machine: Option<&str>) -> Result<()> {
        self.order("no_notify_machine", vec![json!(machine)], Map::new()).await
    }

    /// All jobs that live.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn list_jobs(&mut self) -> Result<Vec<JobRecord>> {
        self.ask("list_jobs", vec![], Map::new(), "a list of jobs").await
    }

    /// All machines, those that are preferred first.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn list_machines(&mut self) -> Result<Vec<MachineRecord>> {
        self.ask("list_machines", vec![], Map::new(), "a list of machines").await
    }

    /// Where a board is screwed in; `None` if there is no such board.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn get_board_position(&mut self, machine: &str, board: BoardPlace) -> Result<Option<PhysicalPlace>> {
        let named = named(&[
            ("machine_name", json!(machine)),
            ("x", json!(board.x)),
            ("y", json!(board.y)),
            ("z", json!(board.z)),
        ]);
        self.ask("get_board_position", vec![], named, "a board's physical place").await
    }

    /// Which board is screwed in there; `None` if there is none. The server takes cabinet, frame and board by the names x, y and z.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn get_board_at_position(&mut self, machine: &str, place: PhysicalPlace) -> Result<Option<BoardPlace>> {
        let named = named(&[
            ("machine_name", json!(machine)),
            ("x", json!(place.cabinet)),
            ("y", json!(place.frame)),
            ("z", json!(place.board)),
        ]);
        self.ask("get_board_at_position", vec![], named, "a board's place").await
    }

    /// All about where a board or a chip is; `None` if there is none.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn where_is(&mut self, place: &Place) -> Result<Option<Location>> {
        let named = match place {
            Place::Board(machine, board) => named(&[
                ("machine", json!(machine)),
                ("x", json!(board.x)),
                ("y", json!(board.y)),
                ("z", json!(board.z)),
            ]),
            Place::Physical(machine, place) => named(&[
                ("machine", json!(machine)),
                ("cabinet", json!(place.cabinet)),
                ("frame", json!(place.frame)),
                ("board", json!(place.board)),
            ]),
            Place::Chip(machine, x, y) => {
                named(&[("machine", json!(machine)), ("chip_x", json!(x)), ("chip_y", json!(y))])
            }
            Place::JobChip(job, x, y) => named(&[("job_id", json!(job)), ("chip_x", json!(x)), ("chip_y", json!(y))]),
        };
        self.ask("where_is", vec![], named, "a location").await
    }

    /// The next notification: one that came between answers, or one that comes within a time. May be abandoned.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn notification(&mut self, within: Duration) -> Result<Option<Notification>> {
        const COMMAND: &str = "notify";
        if let Some(notification) = self.notifications.pop_front() {
            return Ok(Some(notification));
        }
        let Ok(line) = timeout(within, self.lines.line()).await else { return Ok(None) };
        let line = self.received(COMMAND, line)?;
        match self.sort(COMMAND, &line)? {
            None => Ok(self.notifications.pop_front()),
            Some(_) => Err(SpallocError::protocol(&self.server, COMMAND, &line, "a notification")),
        }
    }

    /// A command whose answer says nothing.
    async fn order(&mut self, command: &str, positional: Vec<Value>, named: Map<String, Value>) -> Result<()> {
        self.call(command, positional, named).await.map(drop)
    }

    /// A command and its answer.
    async fn ask<T: DeserializeOwned>(
        &mut self,
        command: &str,
        positional: Vec<Value>,
        named: Map<String, Value>,
        expected: &str,
    ) -> Result<T> {
        let value = self.call(command, positional, named).await?;
        let shown = value.to_string();
        serde_json::from_value(value).map_err(|_| SpallocError::protocol(&self.server, command, shown, expected))
    }

    async fn call(&mut self, command: &str, positional: Vec<Value>, named: Map<String, Value>) -> Result<Value> {
        if std::mem::replace(&mut self.in_call, true) {
            return Err(self.closed(command));
        }
        let mut line = json!({ "command": command, "args": positional, "kwargs": named }).to_string();
        line.push('\n');
        match timeout(ANSWER_TIMEOUT, self.exchange(command, line.as_bytes())).await {
            Ok(answer) => {
                // A refusal is an answer, too.
                self.in_call = !matches!(answer, Ok(_) | Err(SpallocError::Refused { .. }));
                answer
            }
            Err(_) => {
                let (server, command) = (self.server.clone(), command.to_owned());
                Err(SpallocError::Silent { server, command, waited: ANSWER_TIMEOUT })
            }
        }
    }

    async fn exchange(&mut self, command: &str, request: &[u8]) -> Result<Value> {
        self.out.write_all(request).await.map_err(|source| self.broken(command, source))?;
        loop {
            let line = self.lines.line().await;
            let line = self.received(command, line)?;
            if let Some(value) = self.sort(command, &line)? {
                return Ok(value);
            }
        }
    }

    /// A line, if one came.
    fn received(&self, command: &str, line: io::Result<Option<Vec<u8>>>) -> Result<Vec<u8>> {
        match line {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(self.closed(command)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(SpallocError::protocol(&self.server, command, error.to_string(), "a line of JSON"))
            }
            Err(error) => Err(self.broken(command, error)),
        }
    }

    /// The value of an answer; a notification is put aside.
    fn sort(&mut self, command: &str, line: &[u8]) -> Result<Option<Value>> {
        const EXPECTED: &str = "an object with `return`";
        let wrong = || SpallocError::protocol(&self.server, command, line, EXPECTED);
        let Ok(Value::Object(mut object)) = serde_json::from_slice(line) else { return Err(wrong()) };
        if let Some(value) = object.remove("return") {
            return Ok(Some(value));
        }
        if let Some(message) = object.remove("exception") {
            let message = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
            return Err(SpallocError::Refused { server: self.server.clone(), command: command.to_owned(), message });
        }
        let jobs = object.remove("jobs_changed").map(|jobs| serde_json::from_value(jobs).map(Notification::Jobs));
        let machines =
            || object.remove("machines_changed").map(|names| serde_json::from_value(names).map(Notification::Machines));
        let Some(Ok(notification)) = jobs.or_else(machines) else { return Err(wrong()) };
        if self.notifications.len() == NOTIFICATIONS_MAX {
            self.notifications.pop_front();
        }
        self.notifications.push_back(notification);
        Ok(None)
    }

    fn closed(&self, command: &str) -> SpallocError {
        SpallocError::Closed { server: self.server.clone(), command: command.to_owned() }
    }

    /// What a broken connection is called.
    fn broken(&self, command: &str, error: io::Error) -> SpallocError {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                self.closed(command)
            }
            _ => SpallocError::unreachable(&self.server, error),
        }
    }
}

fn named(arguments: &[(&str, Value)]) -> Map<String, Value> {
    arguments.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}
