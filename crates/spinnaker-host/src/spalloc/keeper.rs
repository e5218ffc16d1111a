//! Keeps a job alive: a thread that owns the connection to the server, asks for the job's state in time, and connects again when the
//! connection is lost.
//!
//! It has a runtime of its own, so that it also runs while the program computes or blocks. Every exchange with the server has a bound, and
//! all waiting for the server's decisions has the bounds of the request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::classic::{Client, JobId, JobState};
use super::error::{Result, SpallocError};
use super::geometry::MachineInfo;
use super::request::{JobRequest, Server};
use super::service::proxy::Proxy;
use super::service::{ServiceJob, Session};

/// How often the server is asked while boards are awaited, in case it does not tell.
const POLL: Duration = Duration::from_secs(1);
/// How seldom a job that has its boards is asked for: to notice in time that it was taken away.
const POLL_SLOWEST: Duration = Duration::from_secs(20);
/// After a change, for several to be looked at together, and so that a server that tells of our own questions is not asked without end.
const SETTLE: Duration = Duration::from_millis(20);
/// The first pause before another try to connect; it doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// For how long a server may be lost whose jobs never expire.
const LOST_MAX: Duration = Duration::from_secs(300);

/// Where a job is on its way to its boards.
#[derive(Debug, Clone)]
pub enum Phase {
    /// The server is being asked.
    Asking,
    /// Boards are not free yet.
    Queued,
    /// The job has boards, and they are being switched.
    Power,
    /// The job has boards with power, not booted (or without, if they were switched off).
    Ready,
    /// The job is over, and why.
    Over(SpallocError),
}

/// How a job stands.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The job's number, or its URL at the newer service, once it has one.
    pub job: Option<String>,
    /// Where it is on its way.
    pub phase: Phase,
    /// Whether its boards are, or are being, switched on, where the server tells.
    pub power: Option<bool>,
    /// Whether the server can be reached at this moment. While it cannot, the job lives on until its keepalive is over.
    pub connected: bool,
    /// The machine, once the job is ready.
    pub machine: Option<Arc<MachineInfo>>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(job) = &self.job {
            write!(f, "job {job}: ")?;
        }
        match &self.phase {
            Phase::Asking => f.write_str("asking the server"),
            Phase::Queued => f.write_str("waiting for boards to become free"),
            Phase::Power if self.power == Some(false) => f.write_str("switching its boards off"),
            Phase::Power => f.write_str("switching its boards on"),
            Phase::Ready => f.write_str("ready"),
            Phase::Over(error) => error.fmt(f),
        }?;
        if self.connected || self.job.is_none() || matches!(self.phase, Phase::Over(_)) {
            return Ok(());
        }
        f.write_str(" (the server is not reached)")
    }
}

/// What a job can be told.
pub(super) enum Order {
    /// End the job.
    Destroy { reason: String, done: oneshot::Sender<Result<()>> },
    /// Switch its boards, and say when they are.
    Power { on: bool, done: oneshot::Sender<Result<()>> },
    /// The way for datagrams through the server; `None` if the boards are reached without.
    Proxy { done: oneshot::Sender<Result<Option<Proxy>>> },
}

/// A server's answer about a job, in either protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub state: JobState,
    pub power: Option<bool>,
    pub reason: Option<String>,
}

/// A job at a classic server.
struct ClassicJob {
    host: String,
    port: u16,
    client: Option<Client>,
    job: JobId,
}

impl ClassicJob {
    async fn create(host: &str, port: u16, request: &JobRequest) -> Result<Self> {
        let mut client = Client::connect(host, port).await?;
        if let Some(machine) = &request.machine {
            let known: Vec<String> = client.list_machines().await?.into_iter().map(|machine| machine.name).collect();
            if !known.contains(machine) {
                let server = client.server().to_owned();
                return Err(SpallocError::NoSuchMachine { server, machine: machine.clone(), known });
            }
        }
        let job = client.create_job(request).await?;
        let mut this = Self { host: host.to_owned(), port, client: Some(client), job };
        let notified = this.client().await?.notify_job(Some(job)).await;
        // The job is there: from now on a lost connection is the keeper's affair.
        let _ = this.noted(notified);
        Ok(this)
    }

    async fn client(&mut self) -> Result<&mut Client> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let mut client = Client::connect(&self.host, self.port).await?;
                client.notify_job(Some(self.job)).await?;
                client
            }
        };
        Ok(self.client.insert(client))
    }

    /// Drops a connection that failed. A refusal is an answer like another.
    fn noted<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if matches!(&outcome, Err(error) if !matches!(error, SpallocError::Refused { .. })) {
            self.client = None;
        }
        outcome
    }

    async fn status(&mut self) -> Result<Status> {
        let job = self.job;
        // Asking for a job keeps it alive.
        let status = self.client().await?.get_job_state(job).await;
        self.noted(status).map(|status| Status { state: status.state, power: status.power, reason: status.reason })
    }

    async fn machine(&mut self) -> Result<Option<MachineInfo>> {
        let job = self.job;
        let info = self.client().await?.get_job_machine_info(job).await;
        self.noted(info)
    }

    async fn power(&mut self, on: bool) -> Result<()> {
        let job = self.job;
        let client = self.client().await?;
        let outcome = if on { client.power_on_job_boards(job).await } else { client.power_off_job_boards(job).await };
        self.noted(outcome)
    }

    async fn destroy(&mut self, reason: &str) -> Result<()> {
        let job = self.job;
        let outcome = self.client().await?.destroy_job(job, reason).await;
        self.noted(outcome)
    }

    /// Waits until the server tells of a change, or the connection breaks. May be abandoned.
    async fn changed(&mut self) {
        let Some(client) = &mut self.client else { return std::future::pending().await };
        loop {
            match client.notification(LOST_MAX).await {
                Ok(None) => {}
                Ok(Some(_)) => return,
                Err(_) => {
                    self.client = None;
                    return;
                }
            }
        }
    }
}

/// A job at either kind of server.
enum Backend {
    Classic(ClassicJob),
    Service(Box<ServiceJob>),
}

impl Backend {
    async fn create(server: &Server, request: &JobRequest) -> Result<Self> {
        Ok(match server {
            Server::Classic { host, port } => Self::Classic(ClassicJob::create(host, *port, request).await?),
            Server::Service { url, login } => {
                let session = Session::log_in(url, login).await?;
                Self::Service(Box::new(ServiceJob::create(session, request).await?))
            }
        })
    }

    fn id(&self) -> String {
        match self {
            Self::Classic(job) => job.job.to_string(),
            Self::Service(job) => job.url(),
        }
    }

    async fn status(&mut self) -> Result<Status> {
        match self {
            Self::Classic(job) => job.status().await,
            Self::Service(job) => job.status().await,
        }
    }

    async fn machine(&mut self) -> Result<Option<MachineInfo>> {
        match self {
            Self::Classic(job) => job.machine().await,
            Self::Service(job) => job.machine().await,
        }
    }

    async fn power(&mut self, on: bool) -> Result<()> {
        match self {
            Self::Classic(job) => job.power(on).await,
            Self::Service(job) => job.power(on).await,
        }
    }

    async fn destroy(&mut self, reason: &str) -> Result<()> {
        match self {
            Self::Classic(job) => job.destroy(reason).await,
            Self::Service(job) => job.destroy(reason).await,
        }
    }

    async fn proxy(&mut self) -> Result<Option<Proxy>> {
        match self {
            Self::Classic(_) => Ok(None),
            Self::Service(job) => job.proxy().await,
        }
    }

    async fn changed(&mut self) {
        match self {
            Self::Classic(job) => job.changed().await,
            // This one does not tell: it is asked.
            Self::Service(_) => std::future::pending().await,
        }
    }
}

/// The thread's life: creates the job, keeps it, ends it.
pub(super) async fn keep(
    server: Server,
    request: JobRequest,
    orders: mpsc::UnboundedReceiver<Order>,
    progress: watch::Sender<Progress>,
) {
    let over = match Backend::create(&server, &request).await {
        Err(error) => error,
        Ok(backend) => {
            let now = Instant::now();
            let mut keeper = Keeper {
                id: backend.id(),
                server: server.to_string(),
                request,
                backend,
                heard: now,
                phase_since: now,
                retry: None,
                switching: None,
                orders,
                progress: &progress,
            };
            keeper.progress.send_modify(|progress| {
                progress.job = Some(keeper.id.clone());
                progress.connected = true;
            });
            keeper.run().await
        }
    };
    progress.send_modify(|progress| {
        progress.phase = Phase::Over(over);
        progress.connected = false;
    });
}

/// A power command that waits for its end.
struct Switching {
    on: bool,
    since: Instant,
    done: oneshot::Sender<Result<()>>,
}

struct Keeper<'a> {
    id: String,
    server: String,
    request: JobRequest,
    backend: Backend,
    /// When the server last answered.
    heard: Instant,
    /// Since when the job is in its phase.
    phase_since: Instant,
    /// The pause before another try, while the server cannot be reached.
    retry: Option<Duration>,
    switching: Option<Switching>,
    orders: mpsc::UnboundedReceiver<Order>,
    progress: &'a watch::Sender<Progress>,
}

impl Keeper<'_> {
    /// Until the job is over; why.
    async fn run(&mut self) -> SpallocError {
        loop {
            if let Err(over) = self.look().await {
                if !matches!(
                    over,
                    SpallocError::Destroyed { .. } | SpallocError::Impossible { .. } | SpallocError::Lost { .. }
                ) {
                    // It is over for this program, but maybe not for the server. Where that fails, the keepalive ends it.
                    let _ = self.backend.destroy(&over.to_string()).await;
                }
                if let Some(switching) = self.switching.take() {
                    let _ = switching.done.send(Err(over.clone()));
                }
                return over;
            }
            let pause = self.pause();
            tokio::select! {
                biased;
                order = self.orders.recv() => {
                    if let Some(over) = self.obey(order).await {
                        return over;
                    }
                }
                () = self.backend.changed(), if self.retry.is_none() => sleep(SETTLE).await,
                () = sleep(pause) => {}
            }
        }
    }

    /// Until the server is asked again.
    fn pause(&self) -> Duration {
        if let Some(pause) = self.retry {
            return pause;
        }
        let third = self.request.keepalive.map_or(POLL_SLOWEST, |keepalive| keepalive / 3);
        let idle = matches!(self.progress.borrow().phase, Phase::Ready) && self.switching.is_none();
        third.min(if idle { POLL_SLOWEST } else { POLL })
    }

    /// Asks for the job's state, which keeps it alive, and tells of it. An error ends the job.
    async fn look(&mut self) -> Result<()> {
        let outcome = match self.backend.status().await {
            Ok(status) => self.take(status).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {
                self.heard = Instant::now();
                self.retry = None;
                self.progress.send_if_modified(|progress| !std::mem::replace(&mut progress.connected, true));
                self.in_time()
            }
            Err(error) if error.is_passing() => {
                self.retry = Some(self.retry.map_or(RETRY_FIRST, |pause| (2 * pause).min(RETRY_LAST)));
                self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.connected, false));
                let silence = self.heard.elapsed();
                if silence > self.request.keepalive.unwrap_or(LOST_MAX) {
                    let (server, job) = (self.server.clone(), self.id.clone());
                    return Err(SpallocError::Lost { server, job, silence, cause: error.to_string() });
                }
                self.in_time()
            }
            Err(error) => Err(error),
        }
    }

    /// A state that the server told.
    async fn take(&mut self, status: Status) -> Result<()> {
        let phase = match status.state {
            JobState::Queued => Phase::Queued,
            JobState::Power => Phase::Power,
            JobState::Ready => Phase::Ready,
            JobState::Unknown | JobState::Destroyed => {
                let reason = status.reason.filter(|reason| !reason.is_empty());
                let unknown = status.state == JobState::Unknown;
                let or = if unknown { "it does not know the job any longer" } else { "it gives no reason" };
                let reason = reason.unwrap_or_else(|| or.to_owned());
                let first = matches!(self.progress.borrow().phase, Phase::Asking);
                return Err(if first {
                    let (server, wanted) = (self.server.clone(), self.request.want.to_string());
                    SpallocError::Impossible { server, wanted, reason }
                } else {
                    SpallocError::Destroyed { job: self.id.clone(), reason }
                });
            }
        };
        let (new, has_machine) = {
            let progress = self.progress.borrow();
            let same = std::mem::discriminant(&progress.phase) == std::mem::discriminant(&phase);
            (!same || progress.power != status.power, progress.machine.is_some())
        };
        let mut machine = None;
        if matches!(phase, Phase::Ready) && !has_machine {
            let info = self.backend.machine().await?;
            let missing = || {
                SpallocError::protocol(&self.server, "get_job_machine_info", "", "the machine of a job that is ready")
            };
            machine = Some(Arc::new(info.ok_or_else(missing)?));
        }
        if new {
            self.phase_since = Instant::now();
            self.progress.send_modify(|progress| {
                progress.connected = true;
                progress.phase = phase.clone();
                progress.power = status.power;
                progress.machine = machine.or(progress.machine.take());
            });
        }
        let switched = |on: bool| matches!(phase, Phase::Ready) && status.power.is_none_or(|power| power == on);
        if let Some(switching) = self.switching.take_if(|switching| switched(switching.on)) {
            let _ = switching.done.send(Ok(()));
        }
        Ok(())
    }

    /// Whether the job has got on in time.
    fn in_time(&mut self) -> Result<()> {
        let limit = self.request.power_timeout;
        let job = || self.id.clone();
        if let Some(switching) = self.switching.take_if(|switching| switching.since.elapsed() > limit) {
            let _ = switching.done.send(Err(SpallocError::Power { job: job(), on: switching.on, waited: limit }));
        }
        let waited = self.phase_since.elapsed();
        let progress = self.progress.borrow();
        match progress.phase {
            Phase::Queued if waited > self.request.queue_timeout => {
                Err(SpallocError::Queue { wanted: self.request.want.to_string(), waited: self.request.queue_timeout })
            }
            Phase::Power if progress.machine.is_none() && waited > limit => {
                Err(SpallocError::Power { job: job(), on: true, waited: limit })
            }
            _ => Ok(()),
        }
    }

    /// Does what the program wants; `Some` if the job is over by it.
    async fn obey(&mut self, order: Option<Order>) -> Option<SpallocError> {
        match order {
            None => {
                let _ = self.backend.destroy("the client has gone").await;
                Some(SpallocError::Over { job: self.id.clone() })
            }
            Some(Order::Destroy { reason, done }) => {
                let mut outcome = self.backend.destroy(&reason).await;
                if outcome.as_ref().is_err_and(SpallocError::is_passing) {
                    // The connection may have been lost unnoticed.
                    outcome = self.backend.destroy(&reason).await;
                }
                let _ = done.send(outcome);
                Some(SpallocError::Over { job: self.id.clone() })
            }
            Some(Order::Power { on, done }) => {
                match self.backend.power(on).await {
                    Ok(()) => self.switching = Some(Switching { on, since: Instant::now(), done }),
                    Err(error) => drop(done.send(Err(error))),
                }
                None
            }
            Some(Order::Proxy { done }) => {
                let _ = done.send(self.backend.proxy().await);
                None
            }
        }
    }
}
