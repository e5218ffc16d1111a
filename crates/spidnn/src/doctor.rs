//! What stands between this computer and a machine: one check after the other, each with its remedy.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use spinnaker_host::spalloc::Server;
use spinnaker_host::spalloc::classic::{Client, MachineRecord};
use spinnaker_host::{Boards, HostError, Link, Transceiver, UdpLink};
use spinnaker_machine::{BoardLocator, Fidelity, Locator, SpallocLocator, VirtualLocator};
use spinnaker_wire::scp::{self, Command};
use spinnaker_wire::sdp::{self, Endpoint};
use spinnaker_wire::{ChipAddress, boot};
use tokio::net::UdpSocket;

use crate::lease::{self, Lease};
use crate::reach;
use crate::wire_board::machine_of;
use crate::{Error, boot_image};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// Works, but somebody should know.
    Note,
    /// Nothing goes before this is mended.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do, unless all is good.
    pub remedy: Option<String>,
}

/// Checks so far.
#[derive(Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn good(&mut self, name: &'static str, found: impl Into<String>) {
        self.0.push(Check { name, outcome: Outcome::Good, found: found.into(), remedy: None });
    }

    fn note(&mut self, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        let remedy = Some(remedy.into());
        self.0.push(Check { name, outcome: Outcome::Note, found: found.into(), remedy });
    }

    fn bad(&mut self, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        let remedy = Some(remedy.into());
        self.0.push(Check { name, outcome: Outcome::Bad, found: found.into(), remedy });
    }
}

/// How long one question to a board is waited for.
const PATIENCE: Duration = Duration::from_millis(700);
/// How often it is asked before the board counts as silent.
const TRIES: u32 = 3;
/// For how long a monitor that answers may set up its network.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// Looks at all that a session with a machine needs, and leaves the machine as it is: nothing is booted or loaded. The last check is
/// the one that stopped it, if one did.
///
/// # Errors
/// A locator with a mistake.
pub fn examine(locator: &str) -> Result<Vec<Check>, Error> {
    let parsed: Locator = locator.parse()?;
    let mut findings = Findings::default();
    match &parsed {
        Locator::Virtual(v) => virtual_machine(v, &mut findings)?,
        Locator::Board(b) => {
            let runtime = reach::runtime()?;
            runtime.block_on(board(b, &mut findings));
        }
        Locator::Spalloc(s) => {
            let runtime = reach::runtime()?;
            runtime.block_on(allocation(s, &mut findings));
            image(&mut findings);
        }
    }
    Ok(findings.0)
}

fn virtual_machine(locator: &VirtualLocator, findings: &mut Findings) -> Result<(), Error> {
    let machine = locator.machine()?;
    findings.good(
        "machine",
        format!("virtual, in this process: {} chips, {} cores", machine.chips.len(), machine.core_count()),
    );
    if locator.fidelity == Fidelity::Cycle {
        image(findings);
    }
    Ok(())
}

/// Whether blank boards can be booted.
fn image(findings: &mut Findings) {
    match boot_image::find() {
        Ok(image) => match spinnaker_wire::boot_image::BootImage::new_checked(&image) {
            Ok(_) => findings.good("boot image", format!("{} bytes", image.len())),
            Err(e) => findings.bad("boot image", e.to_string(), "name another file by SPINNAKER_BOOT_IMAGE"),
        },
        Err(e) => findings.bad("boot image", "there is none", e.to_string()),
    }
}

/// Whether a server answers, and has what is wanted.
async fn allocation(locator: &SpallocLocator, findings: &mut Findings) {
    let (server, request) = match reach::job_request(locator) {
        Ok(both) => both,
        Err(e) => return findings.bad("request", e.to_string(), "correct the locator"),
    };
    findings.good("request", format!("{} for {}", request.want, request.owner));
    let (host, port) = match &server {
        Server::Classic { host, port } => (host, *port),
        Server::Service { url, .. } => {
            let remedy = "a command with this machine logs in and says more";
            return findings.note(
                "server",
                format!("{url}: a service, which is not asked before a job is wanted"),
                remedy,
            );
        }
    };
    let mut client = match Client::connect(host, port).await {
        Ok(client) => client,
        Err(e) => {
            let remedy = format!(
                "check name and port ({port}), and that this network may reach it; servers are often open to their own network only"
            );
            return findings.bad("server", e.to_string(), remedy);
        }
    };
    findings.good("server", format!("{} answers, version {}", client.server(), client.version()));
    let (machines, jobs) = match (client.list_machines().await, client.list_jobs().await) {
        (Ok(machines), Ok(jobs)) => (machines, jobs),
        (Err(e), _) | (_, Err(e)) => return findings.bad("machines", e.to_string(), "ask whoever runs the server"),
    };
    let tags: Vec<&String> = request.tags.iter().collect();
    let fits = |machine: &MachineRecord| match &request.machine {
        Some(name) => machine.name == *name,
        None if tags.is_empty() => machine.tags.iter().any(|tag| tag == "default"),
        None => tags.iter().all(|tag| machine.tags.contains(tag)),
    };
    let lines: Vec<String> = machines
        .iter()
        .map(|machine| {
            let boards = (3 * machine.width * machine.height) as usize;
            format!("{} ({} boards, {} dead)", machine.name, boards, machine.dead_boards.len())
        })
        .collect();
    let all = if lines.is_empty() { "none".to_string() } else { lines.join(", ") };
    if machines.iter().any(fits) {
        findings.good("machines", all);
    } else {
        let remedy =
            "leave machine= and tags= out, or name one of these; a machine without the tag `default` has to be named";
        findings.bad("machines", format!("none that is asked for among: {all}"), remedy);
    }
    findings.good("jobs", format!("{} under way", jobs.len()));
}

/// What a port says to a question.
enum Answer {
    /// The kernel's name and version.
    Kernel(String, (u16, u16, u16)),
    /// Something that is no answer.
    Nonsense,
    /// The computer there says that nobody listens.
    Refused,
    /// Nothing.
    Silence,
    /// This computer cannot even send.
    Unreachable(std::io::Error),
}

async fn board(locator: &BoardLocator, findings: &mut Findings) {
    let host = &locator.host;
    let Some(ip) = address(host, locator.port, findings).await else { return };
    if !route(ip, locator.port, findings).await {
        return;
    }
    let target = SocketAddr::new(ip, locator.port);
    if !monitor(locator, target, findings).await {
        return;
    }
    let root = match Transceiver::connect_ports(host, locator.port, locator.boot_port).await {
        Ok(root) => root,
        Err(e) => return findings.bad("connection", e.to_string(), "see the operating system's message"),
    };
    machine(locator, root, findings).await;
}

async fn address(host: &str, port: u16, findings: &mut Findings) -> Option<IpAddr> {
    match tokio::net::lookup_host((host, port)).await.ok().and_then(|mut all| all.next()) {
        Some(address) => {
            findings.good(
                "address",
                if host.parse::<IpAddr>().is_ok() { host.to_string() } else { format!("{host} is {}", address.ip()) },
            );
            Some(address.ip())
        }
        None => {
            findings.bad(
                "address",
                format!("no such host: {host}"),
                "check the spelling; boards have usually addresses and no names (192.168.240.1, or as set in the board's serial ROM)",
            );
            None
        }
    }
}

/// Whether this computer has a way there.
async fn route(ip: IpAddr, port: u16, findings: &mut Findings) -> bool {
    let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let local = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(SocketAddr::new(ip, port)).await?;
        socket.local_addr()
    };
    match local.await {
        Ok(local) => {
            let near = same_net(local.ip(), ip);
            let how = if near { "same network by its numbers" } else { "by a gateway, if there is one" };
            findings.good("route", format!("from {} ({how})", local.ip()));
            true
        }
        Err(e) => {
            findings.bad(
                "route",
                format!("this computer has no way to {ip}: {e}"),
                format!("give a network card an address of the board's network, such as {}", neighbour(ip)),
            );
            false
        }
    }
}

/// The first three bytes are equal, as in the networks that boards are usually in.
fn same_net(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets()[..3] == b.octets()[..3],
        _ => false,
    }
}

fn neighbour(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.254 with mask 255.255.255.0")
        }
        IpAddr::V6(_) => "one with the same prefix".to_string(),
    }
}

/// Whether a monitor answers; else what it may be.
async fn monitor(locator: &BoardLocator, target: SocketAddr, findings: &mut Findings) -> bool {
    match ask(target).await {
        Answer::Kernel(name, (a, b, c)) => {
            let found = format!("{name} {a}.{b}.{c} on {target}");
            if name == "SC&MP" && (3..=4).contains(&a) {
                findings.good("monitor", found);
                return true;
            }
            findings.bad(
                "monitor",
                found,
                if name == "BC&MP" {
                    "this is a board's management processor: the board itself has another address, often the next one"
                } else {
                    "switch the board off and on, and boot it with SC&MP 3 or 4"
                },
            );
        }
        Answer::Nonsense => findings.bad(
            "monitor",
            format!("something answers on {target}, but not as a SpiNNaker monitor does"),
            "check the address and the port",
        ),
        Answer::Refused => findings.bad(
            "monitor",
            format!("the computer at {} says that nothing listens on port {}", target.ip(), target.port()),
            "a board never says so: check the address; for a virtual board start `spidnn board`, with --listen as here",
        ),
        Answer::Unreachable(e) => findings.bad(
            "monitor",
            format!("{} cannot be reached: {e}", target.ip()),
            "check cable, power and the addresses' network; a firewall of this computer may forbid it, too",
        ),
        Answer::Silence => silent(locator, target, findings),
    }
    false
}

fn silent(locator: &BoardLocator, target: SocketAddr, findings: &mut Findings) {
    let image = boot_image::find();
    let mut remedy = format!(
        "check power and cable; let UDP through firewalls (ports {} and {} there)",
        locator.port, locator.boot_port
    );
    match image {
        Ok(_) => remedy.push_str("; if the board is only not booted, any command with this machine boots it (version=3 for a board of 4 chips)"),
        Err(_) => remedy.push_str("; if it is not booted, a boot image is needed: set SPINNAKER_BOOT_IMAGE=FILE, or pip install SpiNNMan"),
    }
    findings.bad(
        "monitor",
        format!("no answer from {target} to {TRIES} questions: switched off, not booted, or something between keeps the packets"),
        remedy,
    );
}

/// Asks for the version of whoever is there.
async fn ask(target: SocketAddr) -> Answer {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = match UdpSocket::bind(any).await {
        Ok(socket) => socket,
        Err(e) => return Answer::Unreachable(e),
    };
    if let Err(e) = socket.connect(target).await {
        return Answer::Unreachable(e);
    }
    let header = sdp::Repr::request(Endpoint::core(ChipAddress::ROOT, 0));
    let mut question = [0; sdp::UDP_BYTES_MAX];
    let request = scp::Request { seq: 0x5D00, command: Command::Version };
    let Ok(length) = scp::emit_udp_request(&header, &request, &mut question) else { return Answer::Silence };
    let mut buffer = [0; boot::MESSAGE_BYTES_MAX];
    for _ in 0..TRIES {
        match socket.send(&question[..length]).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => return Answer::Refused,
            Err(e) => return Answer::Unreachable(e),
        }
        match tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await {
            Err(_) => {}
            Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => return Answer::Refused,
            Ok(Err(e)) => return Answer::Unreachable(e),
            Ok(Ok(length)) => return kernel(buffer.get(..length).unwrap_or_default()),
        }
    }
    Answer::Silence
}

fn kernel(datagram: &[u8]) -> Answer {
    let version = || {
        let packet = sdp::Packet::from_udp(datagram).ok()?;
        let reply = scp::Packet::new_checked(packet.body).ok()?;
        let version = scp::Version::parse(reply.payload).ok()?;
        Some(Answer::Kernel(version.name.to_string(), version.number))
    };
    version().unwrap_or(Answer::Nonsense)
}

async fn machine(locator: &BoardLocator, mut root: Transceiver<UdpLink>, findings: &mut Findings) {
    if let Err(e) = root.wait_ready(READY_LIMIT).await {
        let remedy = "wait a little; if it stays so, switch the board off and on";
        return findings.bad("network of the board", e.to_string(), remedy);
    }
    let boards = Boards::find(root, async |_, ip| {
        Ok(Some(Transceiver::connect_ports(&ip.to_string(), locator.port, locator.boot_port).await?))
    });
    let mut boards = match boards.await {
        Ok(boards) => boards,
        Err(e) => return findings.bad("chips", e.to_string(), "switch the board off and on"),
    };
    parts(&boards, findings);
    other_boards(&mut boards, findings).await;
    applications(locator, &mut boards, findings).await;
}

/// Dead chips and cores, one-way links, entries of routing tables.
fn parts(boards: &Boards<impl Link>, findings: &mut Findings) {
    let found = boards.found();
    let machine = machine_of(found);
    findings.good(
        "chips",
        format!(
            "{} chips, {} application cores, {} boards",
            machine.chips.len(),
            machine.core_count(),
            machine.board_count()
        ),
    );
    if !found.silent.is_empty() {
        let list: Vec<String> = found.silent.iter().map(ToString::to_string).collect();
        let remedy = "networks are placed around them; switch the board off and on if they should work";
        findings.note("silent chips", list.join(" "), remedy);
    }
    let expected = 48 * machine.board_count();
    if machine.chips.len() > 4 && machine.chips.len() < expected {
        let missing = expected - machine.chips.len();
        findings.note("dead chips", format!("{missing} of {expected} are missing"), "networks are placed around them");
    }
    let one_way: Vec<String> = one_way_links(boards).iter().map(|(chip, link)| format!("{chip} {link}")).collect();
    if !one_way.is_empty() {
        let remedy = "they are left out; a board that others depend on should have them on its blacklist";
        findings.note("one-way links", one_way.join(", "), remedy);
    }
    let low = found.chips.iter().map(|chip| chip.info.routes_free).min().unwrap_or(0);
    if low < 1023 {
        let remedy = "another application holds them; stop it (`spidnn app M --stop ID`) if it is yours";
        findings.note("routing entries", format!("{low} are free on the fullest chip, of 1023"), remedy);
    }
}

/// Links that work from this end only.
fn one_way_links(boards: &Boards<impl Link>) -> Vec<(ChipAddress, spinnaker_machine::Link)> {
    let machine = machine_of(boards.found());
    let ends = boards.found().chips.iter().flat_map(|chip| {
        let at = spinnaker_machine::ChipXy::new(chip.chip.x(), chip.chip.y());
        let kept = machine.chips.get(&at).map_or([false; 6], |chip| chip.links);
        spinnaker_machine::Link::ALL
            .into_iter()
            .filter(move |link| chip.info.links >> link.index() & 1 == 1 && !kept[link.index()])
            .map(|link| (chip.chip, link))
    });
    ends.collect()
}

/// Whether the Ethernet of every board is reached from here.
async fn other_boards(boards: &mut Boards<impl Link>, findings: &mut Findings) {
    for chip in boards.ethernet_chips().to_vec().into_iter().skip(1) {
        let name = boards.at(chip).link().board();
        match boards.at(chip).version(Endpoint::core(ChipAddress::ROOT, 0)).await {
            Ok(_) => findings.good("further board", format!("{name} (chip {chip}) answers")),
            Err(HostError::Silent { .. }) => findings.bad(
                "further board",
                format!("{name} (chip {chip}) does not answer, though its chips are reached through the first board"),
                "check its Ethernet cable, and that this computer has a way to its address",
            ),
            Err(e) => findings.bad("further board", e.to_string(), "switch it off and on"),
        }
    }
}

/// Who uses the machine.
async fn applications(locator: &BoardLocator, boards: &mut Boards<impl Link>, findings: &mut Findings) {
    let lease = Lease::take(&locator.name());
    if let Err(e) = &lease {
        return findings.bad("free", e.to_string(), "wait until it has ended, or end it");
    }
    match lease::running(boards).await {
        Err(e) => findings.bad("applications", e.to_string(), "switch the board off and on"),
        Ok(all) if all.is_empty() => findings.good("free", "no application runs"),
        Ok(all) => {
            for app in all {
                let found = format!("application {} (`{}`) on {} cores", app.app.0, app.name, app.cores);
                if app.is_session() && (app.lease == 0 || app.lease == lease::word()) {
                    let found = format!("{found}: left by a session of this computer that was killed");
                    findings.note("applications", found, "none needed: the next session takes it off");
                } else {
                    let remedy = format!("if it is yours: spidnn app board:{} --stop {}", locator.name(), app.app.0);
                    findings.bad("applications", found, remedy);
                }
            }
        }
    }
}
