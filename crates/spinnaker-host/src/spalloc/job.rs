//! A claim on boards.

use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use spinnaker_wire::ChipAddress;
use tokio::sync::{mpsc, oneshot, watch};

use super::channel::{BoardChannel, BoardListener};
use super::error::{Result, SpallocError};
use super::geometry::{BoardConnection, MachineInfo};
use super::keeper::{Order, Phase, Progress, keep};
use super::request::{JobRequest, Server};
use super::service::proxy::Proxy;

/// For how long a dropped job waits for the server to hear of it.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// Boards that a server has given, for as long as this lives.
///
/// A thread keeps it alive. Its methods only wait for that thread, so they work on any runtime ([`Job::connect`] alone needs Tokio's, for
/// the sockets). Dropping a job destroys it and waits for that, 5 seconds at most; where the server is not reached in that time, the
/// keepalive ends the job. [`Job::destroy`] is the way to know how it went, and not to block a runtime.
#[derive(Debug)]
pub struct Job {
    orders: mpsc::UnboundedSender<Order>,
    progress: watch::Receiver<Progress>,
    /// Disconnected when the thread is done.
    done: blocking::Receiver<()>,
    server: String,
    machine: Arc<MachineInfo>,
}

impl Job {
    /// Asks for boards and waits until they have power. `progress` is told of each phase; phases that pass quickly may be left out. If the
    /// future is dropped, the job is destroyed.
    ///
    /// # Errors
    /// No server, or none that is understood: [`SpallocError::Unreachable`], [`SpallocError::Silent`], [`SpallocError::Closed`],
    /// [`SpallocError::Version`], [`SpallocError::Protocol`], [`SpallocError::Login`]. Not to be had: [`SpallocError::Request`],
    /// [`SpallocError::NoSuchMachine`], [`SpallocError::Refused`], [`SpallocError::Impossible`]. Not in time: [`SpallocError::Queue`],
    /// [`SpallocError::Power`]. Lost while waiting: [`SpallocError::Destroyed`], [`SpallocError::Lost`].
    pub async fn create(server: &Server, request: &JobRequest, mut progress: impl FnMut(&Progress)) -> Result<Self> {
        request.check()?;
        let mut job = Self::start(server, request)?;
        loop {
            let now = job.progress.borrow_and_update().clone();
            progress(&now);
            if let (Phase::Ready, Some(machine)) = (&now.phase, &now.machine) {
                job.machine = machine.clone();
                return Ok(job);
            }
            job.over(&now)?;
            // The sender tells the end before it goes.
            if job.progress.changed().await.is_err() {
                return Err(job.end());
            }
        }
    }

    fn start(server: &Server, request: &JobRequest) -> Result<Self> {
        let (orders, for_keeper) = mpsc::unbounded_channel();
        let (told, progress) =
            watch::channel(Progress { job: None, phase: Phase::Asking, power: None, connected: false, machine: None });
        let (alive, done) = blocking::channel::<()>();
        let name = server.to_string();
        let (server, request) = (server.clone(), request.clone());
        let no_thread = |error| SpallocError::Thread(Arc::new(error));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        thread::Builder::new()
            .name("spalloc".to_owned())
            .spawn(move || {
                let _alive = alive;
                runtime.block_on(keep(server, request, for_keeper, told));
            })
            .map_err(no_thread)?;
        let nothing = MachineInfo {
            name: String::new(),
            width_chips: 0,
            height_chips: 0,
            wraps_x: false,
            wraps_y: false,
            boards: Vec::new(),
            places: Vec::new(),
        };
        Ok(Self { orders, progress, done, server: name, machine: Arc::new(nothing) })
    }

    /// The job's number, or its URL at the newer service.
    pub fn id(&self) -> String {
        self.progress.borrow().job.clone().unwrap_or_default()
    }

    /// The machine: its size, whether it wraps around, and the way to each board.
    pub fn machine_info(&self) -> &MachineInfo {
        &self.machine
    }

    /// How the job stands.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// A receiver that is told whenever the job stands differently, such as when it is taken away.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Whether the job is still there, as far as is known. Costs nothing.
    ///
    /// # Errors
    /// Why it is over: [`SpallocError::Destroyed`], [`SpallocError::Lost`], [`SpallocError::Over`].
    pub fn check(&self) -> Result<()> {
        self.over(&self.progress.borrow())
    }

    /// Waits until the job is over, for whatever reason.
    pub async fn ended(&self) -> SpallocError {
        let mut progress = self.progress.clone();
        // Fails if the sender is gone, which it is after the end only.
        let _ = progress.wait_for(|progress| matches!(progress.phase, Phase::Over(_))).await;
        self.end()
    }

    /// Switches the boards on or off and waits until they are. Boards that are on are reset.
    ///
    /// # Errors
    /// [`SpallocError::Power`] after the request's `power_timeout`; why the job is over; those of an unreachable server.
    pub async fn power(&self, on: bool) -> Result<()> {
        self.ask(|done| Order::Power { on, done }).await
    }

    /// A way for datagrams to a UDP port of a board, by its Ethernet chip: a socket, or a channel through the newer service.
    ///
    /// # Errors
    /// [`SpallocError::NoSuchBoard`], [`SpallocError::Board`], [`SpallocError::Proxy`]; why the job is over.
    pub async fn connect(&self, chip: ChipAddress, port: u16) -> Result<BoardChannel> {
        let board = self.board(chip)?;
        match self.proxy().await? {
            None => BoardChannel::direct(&board.host, port).await,
            Some(proxy) => BoardChannel::proxied(proxy, chip, port).await,
        }
    }

    /// A way for datagrams from any board, which can be sent to any: what a board's IP tag is pointed at.
    ///
    /// # Errors
    /// [`SpallocError::Board`], [`SpallocError::Proxy`]; why the job is over.
    pub async fn listen(&self) -> Result<BoardListener> {
        match self.proxy().await? {
            None => BoardListener::direct(self.machine.clone()).await,
            Some(proxy) => BoardListener::proxied(proxy).await,
        }
    }

    /// Ends the job and waits until the server has heard it. After that, and after an error, the job is over.
    ///
    /// # Errors
    /// Those of an unreachable server, whose keepalive then ends the job; why the job was over already.
    pub async fn destroy(&mut self, reason: &str) -> Result<()> {
        let reason = reason.to_owned();
        let outcome = self.ask(|done| Order::Destroy { reason, done }).await;
        self.ended().await;
        outcome
    }

    fn board(&self, chip: ChipAddress) -> Result<&BoardConnection> {
        self.machine.boards.iter().find(|board| board.chip == chip).ok_or_else(|| SpallocError::NoSuchBoard {
            job: self.id(),
            chip: chip.to_string(),
            known: self.machine.boards.iter().map(|board| board.chip.to_string()).collect(),
        })
    }

    async fn proxy(&self) -> Result<Option<Proxy>> {
        self.ask(|done| Order::Proxy { done }).await
    }

    /// Has the thread do something. It answers, or it has ended and said why.
    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<Result<T>>) -> Order) -> Result<T> {
        let (done, answer) = oneshot::channel();
        if self.orders.send(order(done)).is_err() {
            return Err(self.ended().await);
        }
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.ended().await),
        }
    }

    fn over(&self, progress: &Progress) -> Result<()> {
        match &progress.phase {
            Phase::Over(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Why it is over.
    fn end(&self) -> SpallocError {
        match &self.progress.borrow().phase {
            Phase::Over(error) => error.clone(),
            // The thread has ended without a word.
            _ => SpallocError::Closed { server: self.server.clone(), command: "keeping the job alive".to_owned() },
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let (done, _) = oneshot::channel();
        if self.orders.send(Order::Destroy { reason: "the client has let go of it".to_owned(), done }).is_ok() {
            // Ends by disconnection. Beyond that time the thread goes on alone.
            let _ = self.done.recv_timeout(DROP_TIMEOUT);
        }
    }
}
