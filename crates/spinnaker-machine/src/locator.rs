//! Machine locators: `virtual:spin5?drop=0.01`, `board:192.168.240.1`, `spalloc:host?boards=3&owner=me`.
//!
//! `spalloc:` names the classic server by its host, the newer service by its URL: `spalloc:https://HOST/PATH?boards=3`.

use core::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::{ChipXy, Link, Machine, MachineError};

/// UDP port of a board's commands.
const BOARD_PORT: u16 = 17893;
/// UDP port of a board's boot ROM.
const BOOT_PORT: u16 = 54321;
/// TCP port of a spalloc server.
const SPALLOC_PORT: u16 = 22244;
/// Longest locator that is read, in bytes.
const LENGTH_MAX: usize = 64 << 10;

/// How exactly a virtual machine simulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fidelity {
    /// Native programs that charge cycles; packets, DMA and links simulated.
    #[default]
    Fast,
    /// Processors interpreted instruction by instruction.
    Cycle,
}

/// What a virtual machine is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VirtualShape {
    /// A SpiNN-3 board.
    Spin3,
    /// A SpiNN-5 board.
    #[default]
    Spin5,
    /// A sheet of chips: width and height.
    Rectangle(u16, u16),
    /// Several SpiNN-5 boards.
    Boards(usize),
}

/// `virtual:...`: a virtual machine and its faults.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualLocator {
    /// Chips.
    pub shape: VirtualShape,
    /// How exactly it simulates (`fidelity=`).
    pub fidelity: Fidelity,
    /// Seed of everything random in it (`seed=`).
    pub seed: u64,
    /// Probability that a multicast packet is lost on a link (`drop=`).
    pub drop_probability: f64,
    /// Probability that a packet between host and machine is lost (`hostdrop=`).
    pub host_drop_probability: f64,
    /// Dead chips (`dead=x,y`).
    pub dead_chips: Vec<ChipXy>,
    /// Dead cores (`dead=x,y,core`).
    pub dead_cores: Vec<(ChipXy, u8)>,
    /// Dead links (`deadlink=x,y,dir`).
    pub dead_links: Vec<(ChipXy, Link)>,
    /// Rate of the host's Ethernet link in Mbit/s (`host_mbps=`).
    pub host_mbps: f64,
    /// Application cores used of each chip at most (`cores=`).
    pub cores: Option<u8>,
    /// Host threads of the simulation (`threads=`); results do not depend on it.
    pub threads: Option<usize>,
}

impl Default for VirtualLocator {
    fn default() -> Self {
        Self {
            shape: VirtualShape::Spin5,
            fidelity: Fidelity::Fast,
            seed: 0,
            drop_probability: 0.0,
            host_drop_probability: 0.0,
            dead_chips: Vec::new(),
            dead_cores: Vec::new(),
            dead_links: Vec::new(),
            host_mbps: 100.0,
            cores: None,
            threads: None,
        }
    }
}

/// `board:HOST[:PORT]`: a board on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardLocator {
    /// Name or address.
    pub host: String,
    /// UDP port, 17893 unless given.
    pub port: u16,
    /// UDP port of the boot ROM (`boot_port=`), 54321 unless given.
    pub boot_port: u16,
    /// Version of the board (`version=`), 3 or 5, which a board that is not booted has to be told.
    pub version: u8,
}

impl BoardLocator {
    /// Host, with the port where it is not the usual one.
    pub fn name(&self) -> String {
        let mut name = String::new();
        // Writing to a string does not fail.
        let _ = write_place(&mut name, &self.host, self.port, BOARD_PORT);
        name
    }
}

/// An allocation server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpallocServer {
    /// `HOST[:PORT]`: the classic server.
    Classic {
        /// Name or address.
        host: String,
        /// TCP port, 22244 unless given.
        port: u16,
    },
    /// `http://...` or `https://...`: the newer service. User and password are not part of a locator.
    Service(String),
}

/// Which boards are wanted of an allocation server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpallocBoards {
    /// So many at least (`boards=N`, 1 unless something else is asked for).
    Count(u32),
    /// A rectangle of triads of boards: width and height (`triads=WxH`).
    Triads(u32, u32),
    /// One board: column and row of its triad, and number in the triad (`board=x,y,z`).
    Board(u32, u32, u32),
}

/// `spalloc:SERVER?boards=N&owner=NAME`: boards from an allocation server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpallocLocator {
    /// Who allocates.
    pub server: SpallocServer,
    /// What is wanted (`boards=`, `triads=` or `board=`).
    pub boards: SpallocBoards,
    /// Who wants them (`owner=`), the login name unless given.
    pub owner: Option<String>,
    /// On which machine of the server (`machine=`).
    pub machine: Option<String>,
    /// On machines with all of these tags (`tags=a,b`).
    pub tags: Vec<String>,
    /// Seconds that the server keeps the boards without hearing of this program (`keepalive=`), 60 unless given.
    pub keepalive_s: Option<u32>,
    /// Seconds to wait for boards to become free (`wait=`), 600 unless given.
    pub wait_s: Option<u32>,
}

/// Text that names a machine. [`Display`](fmt::Display) gives the canonical text, which parses back to the same.
#[derive(Debug, Clone, PartialEq)]
pub enum Locator {
    /// A virtual machine.
    Virtual(VirtualLocator),
    /// A board on the network.
    Board(BoardLocator),
    /// Boards from an allocation server.
    Spalloc(SpallocLocator),
}

impl Default for Locator {
    fn default() -> Self {
        Locator::Virtual(VirtualLocator::default())
    }
}

/// What is wrong with a locator.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LocatorError {
    /// A word is not what may stand there.
    #[error("`{word}` in the machine locator is not {expected}{}", suggestion(.nearest))]
    Word {
        /// The word that was wrong.
        word: String,
        /// What was expected.
        expected: String,
        /// The nearest spelling that would be right.
        nearest: Option<String>,
    },
    /// An option was given more than once.
    #[error("option `{0}` is given twice in the machine locator")]
    Twice(String),
    /// The text is too long to be meant.
    #[error("a machine locator has at most 65,536 characters; this one has {0}")]
    TooLong(usize),
    /// A fault that the machine cannot have.
    #[error("`{word}` in the machine locator: {source}")]
    Fault {
        /// The option that was wrong.
        word: String,
        /// Why.
        source: MachineError,
    },
    /// Not a virtual machine.
    #[error("`{0}` is a machine of the real world: what it consists of is known only after connecting to it")]
    NotVirtual(String),
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|word| format!("; did you mean `{word}`?")).unwrap_or_default()
}

/// Edits (insert, delete, replace, swap of neighbours) that make one word the other.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

fn nearest(word: &str, choices: &[&str]) -> Option<String> {
    let word: String = word.chars().take(40).flat_map(char::to_lowercase).collect();
    let (distance, choice) = choices.iter().map(|choice| (edits(&word, &choice.to_lowercase()), choice)).min()?;
    (distance <= 2.max(choice.len() / 2)).then(|| (*choice).to_owned())
}

fn wrong(word: &str, expected: impl Into<String>, choices: &[&str]) -> LocatorError {
    let word: String = word.chars().take(60).collect();
    LocatorError::Word { nearest: nearest(&word, choices), word, expected: expected.into() }
}

/// A number of a type; no sign, no spaces.
fn number<T: FromStr>(word: &str, whole: &str, expected: &str) -> Result<T, LocatorError> {
    if !word.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(wrong(whole, expected, &[]));
    }
    word.parse().map_err(|_| wrong(whole, expected, &[]))
}

fn probability(word: &str, whole: &str) -> Result<f64, LocatorError> {
    const EXPECTED: &str = "a probability: a number from 0 to below 1";
    let p: f64 = number(word, whole, EXPECTED)?;
    if (0.0..1.0).contains(&p) { Ok(p) } else { Err(wrong(whole, EXPECTED, &[])) }
}

fn host_port(text: &str, port: u16, what: &str) -> Result<(String, u16), LocatorError> {
    // An IPv6 address stands in brackets, as in URLs.
    let (host, rest) = match text.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, rest)) => (host, rest),
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control() || "/?&[]".contains(c)) {
        return Err(wrong(text, format!("{what}: HOST or HOST:PORT"), &[]));
    }
    let port = match rest.strip_prefix(':') {
        Some(digits) => number(digits, digits, "a port: a number from 1 to 65535")?,
        None if rest.is_empty() => port,
        None => return Err(wrong(text, format!("{what}: HOST or HOST:PORT"), &[])),
    };
    if port == 0 {
        return Err(wrong("0", "a port: a number from 1 to 65535", &[]));
    }
    Ok((host.to_owned(), port))
}

const VIRTUAL_OPTIONS: [&str; 9] =
    ["fidelity", "seed", "drop", "hostdrop", "dead", "deadlink", "host_mbps", "cores", "threads"];
const BOARD_OPTIONS: [&str; 2] = ["boot_port", "version"];
const BOARD_VERSION_USUAL: u8 = 5;
const BOARD_VERSION: &str = "the version of a board: 3 (4 chips) or 5 (48 chips)";
const SPALLOC_OPTIONS: [&str; 8] = ["boards", "triads", "board", "owner", "machine", "tags", "keepalive", "wait"];

/// Calls `set` with name, value and the whole word of each option.
fn options(
    text: Option<&str>,
    names: &[&str],
    repeatable: &[&str],
    mut set: impl FnMut(&str, &str, &str) -> Result<(), LocatorError>,
) -> Result<(), LocatorError> {
    let mut seen = Vec::new();
    for word in text.into_iter().flat_map(|text| text.split('&')) {
        let expected = || format!("an option; there are {}, each as NAME=VALUE", names.join(", "));
        let (name, value) = word.split_once('=').ok_or_else(|| wrong(word, expected(), names))?;
        let Some(name) = names.iter().find(|known| **known == name) else {
            return Err(wrong(name, expected(), names));
        };
        if seen.contains(name) && !repeatable.contains(name) {
            return Err(LocatorError::Twice((*name).to_owned()));
        }
        seen.push(name);
        set(name, value, word)?;
    }
    Ok(())
}

fn place(x: &str, y: &str, whole: &str, expected: &str) -> Result<ChipXy, LocatorError> {
    Ok(ChipXy { x: number(x, whole, expected)?, y: number(y, whole, expected)? })
}

fn shape(text: &str) -> Result<VirtualShape, LocatorError> {
    const EXPECTED: &str = "a virtual machine: spin3, spin5, WIDTHxHEIGHT such as 8x8, or Nboards such as 3boards";
    const CHOICES: [&str; 4] = ["spin3", "spin5", "8x8", "3boards"];
    match text {
        "spin3" => return Ok(VirtualShape::Spin3),
        "spin5" => return Ok(VirtualShape::Spin5),
        _ => {}
    }
    if let Some(count) = text.strip_suffix("boards").or_else(|| text.strip_suffix("board"))
        && !count.is_empty()
    {
        return Ok(VirtualShape::Boards(number(count, text, EXPECTED).map_err(|_| wrong(text, EXPECTED, &CHOICES))?));
    }
    if let Some((width, height)) = text.split_once('x')
        && let (Ok(width), Ok(height)) = (number(width, text, EXPECTED), number(height, text, EXPECTED))
    {
        return Ok(VirtualShape::Rectangle(width, height));
    }
    Err(wrong(text, EXPECTED, &CHOICES))
}

fn virtual_locator(text: &str, query: Option<&str>) -> Result<VirtualLocator, LocatorError> {
    let mut locator = VirtualLocator { shape: shape(text)?, ..VirtualLocator::default() };
    options(query, &VIRTUAL_OPTIONS, &["dead", "deadlink"], |name, value, whole| {
        match name {
            "fidelity" => {
                locator.fidelity = match value {
                    "fast" => Fidelity::Fast,
                    "cycle" => Fidelity::Cycle,
                    _ => return Err(wrong(value, "a fidelity: fast or cycle", &["fast", "cycle"])),
                }
            }
            "seed" => locator.seed = number(value, whole, "a seed: a whole number from 0 to 2^64 - 1")?,
            "drop" => locator.drop_probability = probability(value, whole)?,
            "hostdrop" => locator.host_drop_probability = probability(value, whole)?,
            "dead" => {
                const EXPECTED: &str = "dead=x,y for a chip or dead=x,y,core for a core, all whole numbers";
                let parts: Vec<&str> = value.split(',').collect();
                match parts[..] {
                    [x, y] => locator.dead_chips.push(place(x, y, whole, EXPECTED)?),
                    [x, y, core] => {
                        locator.dead_cores.push((place(x, y, whole, EXPECTED)?, number(core, whole, EXPECTED)?));
                    }
                    _ => return Err(wrong(whole, EXPECTED, &[])),
                }
            }
            "deadlink" => {
                const EXPECTED: &str = "deadlink=x,y,dir with dir one of E, NE, N, W, SW, S (or 0 to 5)";
                let parts: Vec<&str> = value.split(',').collect();
                let [x, y, direction] = parts[..] else { return Err(wrong(whole, EXPECTED, &[])) };
                let link = Link::ALL
                    .into_iter()
                    .find(|link| {
                        link.to_string().eq_ignore_ascii_case(direction) || link.index().to_string() == direction
                    })
                    .ok_or_else(|| wrong(direction, EXPECTED, &["E", "NE", "N", "W", "SW", "S"]))?;
                locator.dead_links.push((place(x, y, whole, EXPECTED)?, link));
            }
            "host_mbps" => {
                const EXPECTED: &str = "a rate of the host link in Mbit/s: a number above 0, at most 100000";
                locator.host_mbps = number(value, whole, EXPECTED)?;
                if !(locator.host_mbps >= 0.001 && locator.host_mbps <= 1e5) {
                    return Err(wrong(whole, EXPECTED, &[]));
                }
            }
            "cores" => {
                const EXPECTED: &str = "a number of application cores a chip: 1 to 17";
                let cores = number(value, whole, EXPECTED)?;
                if !(1..=17).contains(&cores) {
                    return Err(wrong(whole, EXPECTED, &[]));
                }
                locator.cores = Some(cores);
            }
            _ => {
                const EXPECTED: &str = "a number of host threads: 1 to 1024";
                let threads = number(value, whole, EXPECTED)?;
                if !(1..=1024).contains(&threads) {
                    return Err(wrong(whole, EXPECTED, &[]));
                }
                locator.threads = Some(threads);
            }
        }
        Ok(())
    })?;
    // What can be known to be wrong is said here, not when the machine is wanted.
    locator.machine()?;
    Ok(locator)
}

fn spalloc_server(text: &str) -> Result<SpallocServer, LocatorError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let (host, port) = host_port(text, SPALLOC_PORT, "a server's name, address or URL")?;
        return Ok(SpallocServer::Classic { host, port });
    };
    const EXPECTED: &str = "a service: http://HOST/PATH or https://HOST/PATH";
    if !["http", "https"].contains(&scheme) {
        return Err(wrong(scheme, EXPECTED, &["http", "https"]));
    }
    // Locators are shown and written to reports.
    if let Some((_, place)) = rest.rsplit_once('@') {
        return Err(wrong(place, "possible with a password: that belongs into SPALLOC_USER and SPALLOC_PASSWORD", &[]));
    }
    host_port(rest.split('/').next().unwrap_or_default(), SPALLOC_PORT, EXPECTED)?;
    if rest.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(wrong(rest, EXPECTED, &[]));
    }
    Ok(SpallocServer::Service(text.to_owned()))
}

fn spalloc_locator(place: &str, query: Option<&str>) -> Result<SpallocLocator, LocatorError> {
    let mut locator = SpallocLocator {
        server: spalloc_server(place)?,
        boards: SpallocBoards::Count(1),
        owner: None,
        machine: None,
        tags: Vec::new(),
        keepalive_s: None,
        wait_s: None,
    };
    let mut shapes = 0;
    options(query, &SPALLOC_OPTIONS, &[], |name, value, whole| {
        shapes += u32::from(["boards", "triads", "board"].contains(&name));
        if shapes > 1 {
            return Err(wrong(whole, "possible here: boards=, triads= and board= exclude each other", &[]));
        }
        match name {
            "boards" => {
                locator.boards = SpallocBoards::Count(at_least_one(value, whole, "a number of boards: 1 or more")?)
            }
            "triads" => locator.boards = triads(value, whole)?,
            "board" => locator.boards = board(value, whole)?,
            "owner" => locator.owner = Some(named(value, whole, "owner=NAME")?),
            "machine" => locator.machine = Some(named(value, whole, "machine=NAME")?),
            "tags" => {
                let tags = value.split(',').map(|tag| named(tag, whole, "tags=NAME,NAME"));
                locator.tags = tags.collect::<Result<_, _>>()?;
            }
            "keepalive" => {
                const EXPECTED: &str = "a time in seconds: 1 to 86400";
                let seconds = number(value, whole, EXPECTED)?;
                if !(1..=86_400).contains(&seconds) {
                    return Err(wrong(whole, EXPECTED, &[]));
                }
                locator.keepalive_s = Some(seconds);
            }
            _ => locator.wait_s = Some(number(value, whole, "a time in seconds")?),
        }
        if locator.machine.is_some() && !locator.tags.is_empty() {
            return Err(wrong(whole, "possible here: machine= and tags= exclude each other", &[]));
        }
        Ok(())
    })?;
    Ok(locator)
}

fn at_least_one(value: &str, whole: &str, expected: &str) -> Result<u32, LocatorError> {
    match number(value, whole, expected)? {
        0 => Err(wrong(whole, expected, &[])),
        count => Ok(count),
    }
}

fn named(value: &str, whole: &str, expected: &str) -> Result<String, LocatorError> {
    if value.is_empty() { Err(wrong(whole, expected, &[])) } else { Ok(value.to_owned()) }
}

fn triads(value: &str, whole: &str) -> Result<SpallocBoards, LocatorError> {
    const EXPECTED: &str = "triads=WIDTHxHEIGHT such as triads=2x1";
    let (width, height) = value.split_once('x').ok_or_else(|| wrong(whole, EXPECTED, &[]))?;
    Ok(SpallocBoards::Triads(at_least_one(width, whole, EXPECTED)?, at_least_one(height, whole, EXPECTED)?))
}

fn board(value: &str, whole: &str) -> Result<SpallocBoards, LocatorError> {
    const EXPECTED: &str = "board=x,y,z: column and row of the triad, and 0, 1 or 2";
    let parts: Vec<&str> = value.split(',').collect();
    let &[x, y, z] = parts.as_slice() else { return Err(wrong(whole, EXPECTED, &[])) };
    let z = number(z, whole, EXPECTED)?;
    if z > 2 {
        return Err(wrong(whole, EXPECTED, &[]));
    }
    Ok(SpallocBoards::Board(number(x, whole, EXPECTED)?, number(y, whole, EXPECTED)?, z))
}

impl FromStr for Locator {
    type Err = LocatorError;

    fn from_str(text: &str) -> Result<Self, LocatorError> {
        const KINDS: [&str; 3] = ["virtual", "board", "spalloc"];
        if text.len() > LENGTH_MAX {
            return Err(LocatorError::TooLong(text.len()));
        }
        let expected = "a kind of machine: virtual:..., board:HOST or spalloc:SERVER";
        let (kind, rest) = text.split_once(':').ok_or_else(|| {
            // `spin5` alone is the likeliest slip.
            if shape(text.split('?').next().unwrap_or(text)).is_ok() {
                let word: String = text.chars().take(60).collect();
                let nearest = Some(format!("virtual:{word}"));
                LocatorError::Word { word, expected: expected.to_owned(), nearest }
            } else {
                wrong(text, expected, &KINDS)
            }
        })?;
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        match kind {
            "virtual" => Ok(Locator::Virtual(virtual_locator(place, query)?)),
            "board" => {
                let (host, port) = host_port(place, BOARD_PORT, "a board's name or address")?;
                let mut locator = BoardLocator { host, port, boot_port: BOOT_PORT, version: BOARD_VERSION_USUAL };
                options(query, &BOARD_OPTIONS, &[], |name, value, whole| {
                    if name == "boot_port" {
                        locator.boot_port = number(value, whole, "a port: a number from 1 to 65535")?;
                    } else {
                        locator.version = number(value, whole, BOARD_VERSION)?;
                    }
                    match (locator.boot_port, locator.version) {
                        (0, _) => Err(wrong(whole, "a port: a number from 1 to 65535", &[])),
                        (_, 3 | 5) => Ok(()),
                        _ => Err(wrong(whole, BOARD_VERSION, &[])),
                    }
                })?;
                Ok(Locator::Board(locator))
            }
            "spalloc" => Ok(Locator::Spalloc(spalloc_locator(place, query)?)),
            _ => Err(wrong(kind, expected, &KINDS)),
        }
    }
}

impl VirtualLocator {
    /// The machine with its faults.
    ///
    /// # Errors
    /// [`LocatorError::Fault`] if it has no such part, or cannot be of this size.
    pub fn machine(&self) -> Result<Machine, LocatorError> {
        let fault = |word: String| move |source| LocatorError::Fault { word, source };
        let mut machine = match self.shape {
            VirtualShape::Spin3 => Machine::spin3(),
            VirtualShape::Spin5 => Machine::spin5(),
            VirtualShape::Rectangle(width, height) => {
                Machine::rectangle(width, height).map_err(fault(self.shape.to_string()))?
            }
            VirtualShape::Boards(count) => Machine::boards(count).map_err(fault(self.shape.to_string()))?,
        };
        // Cores and links first: they may be on a chip that is dead as well.
        for &(xy, core) in &self.dead_cores {
            machine.kill_core(xy, core).map_err(fault(format!("dead={xy},{core}")))?;
        }
        for &(xy, link) in &self.dead_links {
            machine.kill_link(xy, link).map_err(fault(format!("deadlink={xy},{link}")))?;
        }
        for &xy in &self.dead_chips {
            machine.kill_chip(xy).map_err(fault(format!("dead={xy}")))?;
        }
        if let Some(cores) = self.cores {
            machine.cap_cores(usize::from(cores));
        }
        machine.remove_unreachable();
        Ok(machine)
    }
}

impl Locator {
    /// The machine, if it is a virtual one; chips that the host cannot reach over working links are not part of it.
    ///
    /// # Errors
    /// [`LocatorError::NotVirtual`] for boards of the real world; [`LocatorError::Fault`] if the machine has no part
    /// that is said to be dead, or cannot be of this size.
    pub fn machine(&self) -> Result<Machine, LocatorError> {
        match self {
            Locator::Virtual(locator) => locator.machine(),
            other => Err(LocatorError::NotVirtual(other.to_string())),
        }
    }
}

impl fmt::Display for VirtualShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VirtualShape::Spin3 => f.write_str("spin3"),
            VirtualShape::Spin5 => f.write_str("spin5"),
            VirtualShape::Rectangle(width, height) => write!(f, "{width}x{height}"),
            VirtualShape::Boards(count) => write!(f, "{count}boards"),
        }
    }
}

impl fmt::Display for VirtualLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = VirtualLocator::default();
        let mut words = Vec::new();
        if self.fidelity == Fidelity::Cycle {
            words.push("fidelity=cycle".to_owned());
        }
        if self.seed != default.seed {
            words.push(format!("seed={}", self.seed));
        }
        if self.drop_probability != default.drop_probability {
            words.push(format!("drop={}", self.drop_probability));
        }
        if self.host_drop_probability != default.host_drop_probability {
            words.push(format!("hostdrop={}", self.host_drop_probability));
        }
        words.extend(self.dead_chips.iter().map(|xy| format!("dead={xy}")));
        words.extend(self.dead_cores.iter().map(|(xy, core)| format!("dead={xy},{core}")));
        words.extend(self.dead_links.iter().map(|(xy, link)| format!("deadlink={xy},{link}")));
        if self.host_mbps != default.host_mbps {
            words.push(format!("host_mbps={}", self.host_mbps));
        }
        words.extend(self.cores.map(|cores| format!("cores={cores}")));
        words.extend(self.threads.map(|threads| format!("threads={threads}")));
        write!(f, "virtual:{}{}{}", self.shape, if words.is_empty() { "" } else { "?" }, words.join("&"))
    }
}

/// `HOST` or `HOST:PORT`.
fn write_place(f: &mut impl fmt::Write, host: &str, port: u16, default: u16) -> fmt::Result {
    if host.contains(':') {
        write!(f, "[{host}]")?
    } else {
        f.write_str(host)?
    }
    if port == default { Ok(()) } else { write!(f, ":{port}") }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Locator::Virtual(locator) => locator.fmt(f),
            Locator::Board(board) => {
                write!(f, "board:{}", board.name())?;
                let mut words = Vec::new();
                if board.boot_port != BOOT_PORT {
                    words.push(format!("boot_port={}", board.boot_port));
                }
                if board.version != BOARD_VERSION_USUAL {
                    words.push(format!("version={}", board.version));
                }
                write!(f, "{}{}", if words.is_empty() { "" } else { "?" }, words.join("&"))
            }
            Locator::Spalloc(locator) => locator.fmt(f),
        }
    }
}

impl fmt::Display for SpallocServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpallocServer::Classic { host, port } => write_place(f, host, *port, SPALLOC_PORT),
            SpallocServer::Service(url) => f.write_str(url),
        }
    }
}

impl fmt::Display for SpallocLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spalloc:{}?", self.server)?;
        match self.boards {
            SpallocBoards::Count(count) => write!(f, "boards={count}"),
            SpallocBoards::Triads(width, height) => write!(f, "triads={width}x{height}"),
            SpallocBoards::Board(x, y, z) => write!(f, "board={x},{y},{z}"),
        }?;
        for (name, value) in [("owner", &self.owner), ("machine", &self.machine)] {
            value.as_ref().map_or(Ok(()), |value| write!(f, "&{name}={value}"))?;
        }
        if !self.tags.is_empty() {
            write!(f, "&tags={}", self.tags.join(","))?;
        }
        for (name, seconds) in [("keepalive", self.keepalive_s), ("wait", self.wait_s)] {
            seconds.map_or(Ok(()), |seconds| write!(f, "&{name}={seconds}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Locator {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn locators_parse_and_print_canonically() {
        let check = |text: &str, canonical: &str| {
            assert_eq!(parse(text).to_string(), canonical);
            assert_eq!(parse(canonical), parse(text));
        };
        check("virtual:spin5", "virtual:spin5");
        check("virtual:spin3?seed=0&host_mbps=100&fidelity=fast", "virtual:spin3");
        check("virtual:8x8?drop=0.05&seed=7", "virtual:8x8?seed=7&drop=0.05");
        check("virtual:1board", "virtual:1boards");
        check(
            "virtual:3boards?deadlink=0,0,0&dead=1,2&dead=3,4,17&dead=2,2&hostdrop=0.5&cores=4&threads=2",
            "virtual:3boards?hostdrop=0.5&dead=1,2&dead=2,2&dead=3,4,17&deadlink=0,0,E&cores=4&threads=2",
        );
        check("virtual:spin5?fidelity=cycle&host_mbps=1000", "virtual:spin5?fidelity=cycle&host_mbps=1000");
        check("board:192.168.240.1", "board:192.168.240.1");
        check("board:spin:17893", "board:spin");
        check("board:[fe80::1]:1", "board:[fe80::1]:1");
        check("board:b?version=3&boot_port=54322", "board:b?boot_port=54322&version=3");
        check("board:b?version=5&boot_port=54321", "board:b");
        check("spalloc:server?boards=24&owner=me@there", "spalloc:server?boards=24&owner=me@there");
        check("spalloc:server:22244", "spalloc:server?boards=1");
        check("spalloc:server:99?triads=2x1&machine=million", "spalloc:server:99?triads=2x1&machine=million");
        check(
            "spalloc:[::1]?wait=60&keepalive=30&tags=a,b&board=1,0,2&owner=me",
            "spalloc:[::1]?board=1,0,2&owner=me&tags=a,b&keepalive=30&wait=60",
        );
        check("spalloc:https://host/spalloc?boards=3", "spalloc:https://host/spalloc?boards=3");
        check("spalloc:http://host:8080", "spalloc:http://host:8080?boards=1");
        assert_eq!(parse("virtual:spin5"), Locator::default());
    }

    #[test]
    fn errors_name_the_word_and_what_was_expected() {
        let check = |text: &str, parts: &[&str]| {
            let error = text.parse::<Locator>().expect_err(text).to_string();
            for part in parts {
                assert!(error.contains(part), "{text}: {error} lacks {part}");
            }
        };
        check("virtaul:spin5", &["`virtaul`", "did you mean `virtual`?"]);
        check("spin5", &["`spin5`", "did you mean `virtual:spin5`?"]);
        check("virtual:spin6", &["`spin6`", "spin3, spin5", "did you mean `spin"]);
        check("virtual:spin5?sed=1", &["`sed`", "did you mean `seed`?", "host_mbps"]);
        check("virtual:spin5?", &["an option"]);
        check("virtual:spin5?drop=2", &["`drop=2`", "probability"]);
        check("virtual:spin5?drop=-0.1", &["`drop=-0.1`", "probability"]);
        check("virtual:spin5?drop=nan", &["probability"]);
        check("virtual:spin5?fidelity=fats", &["`fats`", "did you mean `fast`?"]);
        check("virtual:spin5?seed=1&seed=2", &["`seed`", "twice"]);
        check("virtual:spin5?dead=1", &["`dead=1`", "dead=x,y"]);
        check("virtual:spin5?dead=7,0", &["dead=7,0", "no working chip 7,0"]);
        check("virtual:spin5?dead=0,0", &["Ethernet"]);
        check("virtual:spin5?dead=1,1,17", &["chip 1,1 has no working application core 17"]);
        check("virtual:spin5?deadlink=0,0,W", &["chip 0,0 has no working link W"]);
        check("virtual:spin5?deadlink=0,0,Q", &["`Q`", "E, NE, N"]);
        check("virtual:spin5?host_mbps=0", &["Mbit/s"]);
        check("virtual:spin5?cores=18", &["1 to 17"]);
        check("virtual:0x4", &["0 x 4 chips"]);
        check("virtual:0boards", &["one at least"]);
        check("virtual:99999999999999999999boards", &["spin3"]);
        check("board:", &["HOST"]);
        check("board:a:b", &["`b`", "port"]);
        check("board:a?x=1", &["boot_port, version"]);
        check("board:a?version=4", &["version=4", "3 (4 chips)"]);
        check("board:a?boot_port=0", &["boot_port=0"]);
        check("spalloc:s?bords=1", &["`bords`", "did you mean `boards`?"]);
        check("spalloc:s?boards=0", &["1 or more"]);
        check("spalloc:s?boards=3&triads=1x1", &["`triads=1x1`", "exclude each other"]);
        check("spalloc:s?triads=3", &["`triads=3`", "triads=2x1"]);
        check("spalloc:s?triads=0x1", &["triads=2x1"]);
        check("spalloc:s?board=0,0,3", &["0, 1 or 2"]);
        check("spalloc:s?board=0,0", &["board=x,y,z"]);
        check("spalloc:s?machine=", &["machine=NAME"]);
        check("spalloc:s?machine=m&tags=a", &["`tags=a`", "exclude each other"]);
        check("spalloc:s?tags=a,,b", &["tags=NAME,NAME"]);
        check("spalloc:s?keepalive=0", &["1 to 86400"]);
        check("spalloc:s?keepalvie=60", &["did you mean `keepalive`?"]);
        check("spalloc:s?wait=-1", &["in seconds"]);
        check("spalloc:ftp://s", &["`ftp`", "https://HOST/PATH"]);
        check("spalloc:https:///path", &["https://HOST/PATH"]);
        check("spalloc:https://me:secret@host/", &["`host/`", "SPALLOC_PASSWORD"]);
        check("", &["kind of machine"]);
    }

    #[test]
    fn only_virtual_machines_are_known_beforehand() {
        assert_eq!(parse("virtual:2x3?cores=5").machine().expect("virtual").core_count(), 30);
        assert!(parse("board:x").machine().expect_err("real").to_string().contains("board:x"));
        assert_eq!("a".repeat(70_000).parse::<Locator>(), Err(LocatorError::TooLong(70_000)));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_not_a_panic(text in "(virtual|board|spalloc)?:?(https?://)?.{0,60}") {
            if let Ok(locator) = text.parse::<Locator>() {
                prop_assert_eq!(locator.to_string().parse::<Locator>().expect("canonical text"), locator);
            }
        }

        #[test]
        fn virtual_locators_round_trip(
            seed: u64, drop in 0.0f64..0.99, threads in 1usize..64, x in 1u8..4, y in 0u8..4, core in 1u8..17,
        ) {
            let text = format!("virtual:4x4?seed={seed}&drop={drop}&threads={threads}&dead={x},{y}&dead={x},{y},{core}");
            let locator: Locator = text.parse().expect("valid");
            prop_assert_eq!(locator.to_string(), {
                let seed = if seed == 0 { String::new() } else { format!("seed={seed}&") };
                let drop = if drop == 0.0 { String::new() } else { format!("drop={drop}&") };
                format!("virtual:4x4?{seed}{drop}dead={x},{y}&dead={x},{y},{core}&threads={threads}")
            });
            prop_assert_eq!(locator.machine().expect("virtual").chips.len(), 15);
        }
    }
}
