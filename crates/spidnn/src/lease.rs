//! Who works with a machine that others can reach, too.
//!
//! A file in the folder for temporary files is locked while a session of this computer holds a board; the lock ends with its process,
//! however that ends. So whatever such a session has left on the board may be cleared by whoever gets the lock. Sessions of other
//! computers are known by a word that each writes beside its cores' counters: theirs is never cleared.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};

use spinnaker_host::{Boards, FoundCore, Link};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::vcpu::{self, Vcpu};
use spinnaker_wire::{AppId, ChipAddress};

use crate::Error;
use crate::wire_board::{APP, BULK_APP};

/// Name that the firmware gives to its cores.
pub const APPLICATION_NAME: &str = "spidnn";
/// The name that the program for bulk transfers gives to its cores.
const BULK_NAME: &str = "spidnn stream";
/// User word of a core's block that tells whose it is.
pub const USER_LEASE: usize = 3;

/// The right of this process to work with a board, as against others of this computer.
pub struct Lease {
    _file: Option<File>,
}

impl Lease {
    /// Takes the board of that name.
    ///
    /// # Errors
    /// [`Error::Held`] if another process of this computer has it.
    pub fn take(board: &str) -> Result<Lease, Error> {
        let name: String = board.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let path = std::env::temp_dir().join(format!("spidnn-board-{name}.lock"));
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        // A file of another user can be locked, too. Where there can be none, there is no protection.
        let Ok(mut file) = opened.or_else(|_| File::open(&path)) else { return Ok(Lease { _file: None }) };
        match file.try_lock() {
            Ok(()) => {
                // For whoever is refused; it is no harm if it cannot be written.
                let _ = file.set_len(0).and_then(|()| write!(file, "process {}", std::process::id()));
                Ok(Lease { _file: Some(file) })
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.rewind().and_then(|()| file.take(100).read_to_string(&mut text));
                let holder = if text.is_empty() { "another process".to_string() } else { text };
                Err(Error::Held { board: board.to_string(), holder: format!("{holder} of this computer") })
            }
            Err(TryLockError::Error(_)) => Ok(Lease { _file: None }),
        }
    }
}

/// The word of this computer; never 0.
pub fn word() -> u32 {
    let name = whoami::hostname().unwrap_or_default();
    let hash = name.as_bytes().iter().fold(0x811C_9DC5u32, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    hash | 1
}

/// An application that runs on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub app: AppId,
    /// Its name.
    pub name: String,
    /// How many cores it has.
    pub cores: usize,
    /// One of them.
    pub first: (ChipAddress, u8),
    /// What its cores say of their holder.
    pub lease: u32,
}

impl Running {
    /// Whether a session of this project runs it, on whatever computer.
    pub fn is_session(&self) -> bool {
        [(APP, APPLICATION_NAME), (BULK_APP, BULK_NAME)].contains(&(self.app, &self.name))
    }
}

/// The applications on a machine, by number and name, among the cores that were busy when it was looked at last.
///
/// # Errors
/// If a chip does not answer.
pub async fn running(host: &mut Boards<impl Link>) -> Result<Vec<Running>, Error> {
    let mut all: BTreeMap<(u8, String), Running> = BTreeMap::new();
    for FoundCore { chip, core, vcpu } in host.busy_cores().await? {
        let name = vcpu.name().to_string();
        let first = (chip, core);
        let app = vcpu.app();
        let entry = all.entry((app.0, name.clone())).or_insert(Running { app, name, cores: 0, first, lease: 0 });
        entry.cores += 1;
        entry.lease |= vcpu.user[USER_LEASE].get();
    }
    Ok(all.into_values().collect())
}

/// Looks whether the machine is free for whoever has the lease, apart from what a session of this computer has left.
///
/// # Errors
/// [`Error::Busy`] for the application of somebody else, [`Error::Held`] for a session of another computer.
pub async fn check(host: &mut Boards<impl Link>, board: &str) -> Result<(), Error> {
    let is_foreign = |lease: u32| lease != 0 && lease != word();
    let held = || Error::Held { board: board.to_string(), holder: "a session of another computer".into() };
    for found in running(host).await? {
        if !found.is_session() {
            return Err(Error::Busy { board: board.to_string(), running: found });
        } else if is_foreign(found.lease) {
            return Err(held());
        }
    }
    let (chip, address) = mark_place(host);
    let mark = host.root().read(Endpoint::core(chip, 0), address, 4).await?;
    let mark = mark.try_into().map_or(0, u32::from_le_bytes);
    if is_foreign(mark) { Err(held()) } else { Ok(()) }
}

/// Says on the machine that a session of this computer is about to load something, or (`false`) that it has left.
///
/// # Errors
/// If the machine does not answer.
pub async fn mark(host: &mut Boards<impl Link>, is_here: bool) -> Result<(), spinnaker_host::HostError> {
    let (chip, address) = mark_place(host);
    let word = if is_here { word() } else { 0 };
    host.root().write(Endpoint::core(chip, 0), address, &word.to_le_bytes()).await
}

/// The root chip's first application core has the mark, also while it is idle.
fn mark_place(host: &Boards<impl Link>) -> (ChipAddress, u32) {
    (host.found().root, user_word(1))
}

/// Address of a core's lease word, as its monitor sees it.
pub fn user_word(core: u8) -> u32 {
    vcpu::address(core) + (std::mem::offset_of!(Vcpu, user) + 4 * USER_LEASE) as u32
}
