//! The way to machines that have monitors: boards on the network, instruction-level ones in this process. What a session needs beyond
//! that is in [`crate::wire_board`].

use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spinnaker_host::spalloc::{BoardPlace, Job, JobLink, JobRequest, Server, Want};
use spinnaker_host::{Boards, BootOptions, HostError, Link, Options, Transceiver, UdpLink};
use spinnaker_machine::{BoardLocator, ChipXy, SpallocBoards, SpallocLocator, SpallocServer, VirtualLocator};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};
use spinnaker_wire::ChipAddress;
use spinnaker_wire::sv::Board as Kind;
use tokio::runtime::Runtime;

use crate::cycle_link::CycleLink;
use crate::{Error, boot_image, interrupt};

/// For how long a monitor that answers may set up its network.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The time that a virtual machine is told at boot (Unix seconds): always the same, so that its runs are.
const BOOT_TIME_S: u32 = 1_577_836_800;
/// How often the boot image is sent to a board that stays silent.
const BOOT_ROUNDS: u32 = 2;

/// A machine whose monitors answer, and what drives the links to it.
pub struct Reached<L> {
    /// Drives the links.
    pub runtime: Runtime,
    /// The boards.
    pub boards: Boards<L>,
}

/// An instruction-level machine in this process, booted with the official monitor.
///
/// # Errors
/// If there is no boot image, or the machine does not come up.
pub fn instruction_level(locator: &VirtualLocator) -> Result<Reached<CycleLink>, Error> {
    let image = boot_image::find()?;
    let machine = locator.machine()?;
    let link = CycleLink::new(CycleMachine::new(&machine, &CycleConfig::from(locator)));
    let runtime = runtime()?;
    let others = link.by(ChipXy::new(0, 0));
    let kind = if machine.chips.len() <= 4 { Kind::Spin3 } else { Kind::Spin5 };
    let boards = runtime.block_on(async {
        let mut root = Transceiver::over(link, Options::default());
        root.boot(&image, &BootOptions::new(kind, BOOT_TIME_S)).await?;
        Boards::find(root, async |chip, _| {
            let link = others.by(ChipXy::new(chip.x(), chip.y()));
            Ok(Some(Transceiver::over(link, Options::default())))
        })
        .await
    })?;
    Ok(Reached { runtime, boards })
}

/// A machine by one of its boards, and connections to its other boards. One that is silent is booted, if there is an image. Whoever sets
/// `interrupt` ends it.
///
/// # Errors
/// If it does not answer, or is no board; [`Error::Interrupted`].
pub fn network(locator: &BoardLocator, interrupt: Option<&AtomicBool>) -> Result<Reached<UdpLink>, Error> {
    let runtime = runtime()?;
    match runtime.block_on(interrupt::until(interrupt, connect(locator))) {
        Ok(boards) => Ok(Reached { runtime, boards }),
        Err(error) => {
            // A search for a name may be under way, which does not end before its time.
            runtime.shutdown_background();
            Err(error)
        }
    }
}

async fn connect(locator: &BoardLocator) -> Result<Boards<UdpLink>, Error> {
    let BoardLocator { host, port, boot_port, version } = locator;
    let mut root = Transceiver::connect_ports(host, *port, *boot_port).await?;
    come_up(&mut root, if *version == 3 { Kind::Spin3 } else { Kind::Spin5 }).await?;
    let boards = Boards::find(root, async |_, ip| {
        Ok(Some(Transceiver::connect_ports(&ip.to_string(), *port, *boot_port).await?))
    });
    Ok(boards.await?)
}

/// Waits for the monitor of a board; boots one that is silent, if there is an image.
async fn come_up(root: &mut Transceiver<impl Link>, kind: Kind) -> Result<(), Error> {
    let silent = match root.wait_ready(READY_LIMIT).await {
        Ok(_) => return Ok(()),
        Err(silent @ HostError::Silent { .. }) => silent,
        Err(other) => return Err(other.into()),
    };
    let image = match boot_image::find() {
        Ok(image) => image,
        Err(why) => return Err(Error::NotBooted { silent, image: why.to_string() }),
    };
    let options = BootOptions { rounds: BOOT_ROUNDS, ..BootOptions::new(kind, now_s()) };
    root.boot_blank(&image, &options).await?;
    Ok(())
}

/// Boards of an allocation server, booted. `progress` is told how the job stands while it waits. Whoever sets `interrupt` ends it, and the
/// job is given back.
///
/// # Errors
/// [`Error::Spalloc`], or that there is no boot image, or the boards do not come up; [`Error::Interrupted`].
pub fn allocated(
    locator: &SpallocLocator,
    interrupt: Option<&AtomicBool>,
    mut progress: impl FnMut(&str),
) -> Result<(Reached<JobLink>, Job), Error> {
    let (server, request) = job_request(locator)?;
    let runtime = runtime()?;
    let allocate = async {
        let job = Job::create(&server, &request, |now| progress(&now.to_string())).await?;
        let mut root = Transceiver::over(job.link(ChipAddress::new(0, 0)).await?, Options::of_process());
        let boot = async {
            come_up(&mut root, Kind::Spin5).await?;
            let boards = Boards::find(root, async |chip, _| {
                let link = job.link(chip).await.map_err(|e| HostError::Argument(e.to_string()))?;
                Ok(Some(Transceiver::over(link, Options::of_process())))
            });
            Ok::<_, Error>(boards.await?)
        };
        let boards = tokio::select! {
            boards = boot => boards?,
            end = job.ended() => return Err(Error::from(end)),
        };
        Ok((job, boards))
    };
    let (job, boards) = runtime.block_on(interrupt::until(interrupt, allocate))?;
    Ok((Reached { runtime, boards }, job))
}

/// What a locator asks of which server.
///
/// # Errors
/// [`Error::Spalloc`] where something is missing, such as the login of a service.
pub fn job_request(locator: &SpallocLocator) -> Result<(Server, JobRequest), Error> {
    let server = match &locator.server {
        SpallocServer::Classic { host, port } => Server::Classic { host: host.clone(), port: *port },
        SpallocServer::Service(url) => Server::service(url)?,
    };
    let want = match locator.boards {
        SpallocBoards::Count(count) => Want::Boards(count),
        SpallocBoards::Triads(width, height) => Want::Triads { width, height },
        SpallocBoards::Board(x, y, z) => Want::Board(BoardPlace { x, y, z }),
    };
    let mut request = match &locator.owner {
        Some(owner) => JobRequest::for_owner(want, owner.as_str()),
        None => JobRequest::new(want)?,
    };
    request.machine.clone_from(&locator.machine);
    request.tags.clone_from(&locator.tags);
    if let Some(s) = locator.keepalive_s {
        request.keepalive = Some(Duration::from_secs(s.into()));
    }
    if let Some(s) = locator.wait_s {
        request.queue_timeout = Duration::from_secs(s.into());
    }
    Ok((server, request))
}

fn now_s() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as u32)
}

/// What drives the links of one machine.
///
/// # Errors
/// If the operating system refuses.
pub fn runtime() -> Result<Runtime, Error> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| Error::Argument(format!("the operating system gives no event queue: {e}")))
}
