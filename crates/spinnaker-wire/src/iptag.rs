//! IP tags: how messages leave a board, and enter it without a header.

use core::fmt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{field, fits, prefix};
use crate::{ChipAddress, CorePort, Result, WireError};

/// Entries of the table: 0..=7 are the user's, 8..=15 for replies to requests without a tag.
pub const TAGS: u8 = 16;
/// Entries that users set.
pub const TAGS_FIXED: u8 = 8;
/// The answer of [`Command::New`] where no entry was free.
pub const TAG_NONE: u32 = 255;

/// How long an unused tag stays: 0 for ever, else 10 ms * 2^(n-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TimeoutCode(pub u8);

impl TimeoutCode {
    /// SC&MP's own choice for transient tags: 2.56 s.
    pub const TRANSIENT_DEFAULT: Self = Self(9);

    /// The time in milliseconds; `None` for never.
    pub const fn milliseconds(self) -> Option<u32> {
        match self.0 {
            0 => None,
            n => Some(10 << (if n > 16 { 15 } else { n - 1 })),
        }
    }
}

/// An entry as GET reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Entry {
    /// IP address, first octet first.
    pub ip: [u8; 4],
    /// MAC address.
    pub mac: [u8; 6],
    /// UDP port of the receiver.
    pub tx_port: U16,
    /// Time left in ticks of 10 ms, 0 for ever.
    pub timeout_ticks: U16,
    /// See the `FLAG_` constants; low bits are the time-out that it was made with.
    pub flags: U16,
    /// Messages sent.
    pub count: U32,
    /// UDP port of the board (reverse tags).
    pub rx_port: U16,
    /// Where datagrams go (reverse tags).
    pub dest_addr: U16,
    /// Where datagrams go (reverse tags).
    pub dest_port: u8,
    /// Unused.
    pub pad: [u8; 7],
}

const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    /// In use.
    pub const FLAG_VALID: u16 = 0x8000;
    /// For one reply.
    pub const FLAG_TRANSIENT: u16 = 0x4000;
    /// The MAC address is not known yet.
    pub const FLAG_ARP: u16 = 0x2000;
    /// IP and port of the sender of the command were used.
    pub const FLAG_SENDER: u16 = 0x0400;
    /// Datagrams come in by it.
    pub const FLAG_REVERSE: u16 = 0x0200;
    /// Messages go out without header.
    pub const FLAG_STRIP: u16 = 0x0100;

    /// Reads an entry from the payload of GET's reply.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn read(payload: &[u8]) -> Result<(&Self, &[u8])> {
        prefix("IP tag entry", payload)
    }

    /// Whether it is in use.
    pub fn is_valid(&self) -> bool {
        self.flags.get() & Self::FLAG_VALID != 0
    }

    /// Where a reverse tag's datagrams go.
    pub fn destination(&self) -> (ChipAddress, CorePort) {
        (ChipAddress(self.dest_addr.get()), CorePort(self.dest_port))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_valid() {
            return f.write_str("tag unused");
        }
        let [a, b, c, d] = self.ip;
        write!(f, "tag to {a}.{b}.{c}.{d}:{} flags {:#06x} sent {}", self.tx_port, self.flags, self.count)?;
        if self.flags.get() & Self::FLAG_REVERSE != 0 {
            let (chip, port) = self.destination();
            write!(f, " from port {} to {chip},{port}", self.rx_port)?;
        }
        Ok(())
    }
}

/// What NEW and SET give an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// UDP port: the host's, or for a reverse tag the board's.
    pub port: u16,
    /// The host's IP address, first octet first; all zero for that of the sender.
    pub ip: [u8; 4],
    /// Where datagrams go (reverse tags).
    pub chip: ChipAddress,
    /// Where datagrams go (reverse tags).
    pub core_port: CorePort,
    /// Time-out, four bits.
    pub timeout: TimeoutCode,
    /// Messages go out without header.
    pub strip: bool,
    /// Datagrams come in by it.
    pub reverse: bool,
    /// Take IP and port of the sender of this command.
    pub use_sender: bool,
}

impl Target {
    /// A tag to a host, without a time-out.
    pub const fn to_host(ip: [u8; 4], port: u16, strip: bool) -> Self {
        Self {
            port,
            ip,
            chip: ChipAddress(0),
            core_port: CorePort(0),
            timeout: TimeoutCode(0),
            strip,
            reverse: false,
            use_sender: false,
        }
    }

    /// A tag to whoever sends this command, whatever address and port the board sees.
    pub const fn to_sender(strip: bool) -> Self {
        Self { use_sender: true, ..Self::to_host([0; 4], 0, strip) }
    }

    /// A reverse tag: datagrams to the board's UDP `port` go to a core.
    pub const fn reverse(port: u16, chip: ChipAddress, core_port: CorePort) -> Self {
        Self { chip, core_port, reverse: true, ..Self::to_host([0; 4], port, true) }
    }

    fn parse([arg1, arg2, arg3]: [u32; 3]) -> Self {
        Self {
            port: arg2 as u16,
            ip: arg3.to_le_bytes(),
            chip: ChipAddress((arg2 >> 16) as u16),
            core_port: CorePort(field(arg1, 8, 8) as u8),
            timeout: TimeoutCode(field(arg1, 24, 4) as u8),
            strip: arg1 >> 28 & 1 != 0,
            reverse: arg1 >> 29 & 1 != 0,
            use_sender: arg1 >> 30 & 1 != 0,
        }
    }

    fn arguments(self, op: u32, tag: u8) -> [u32; 3] {
        let flags = u32::from(self.strip) | u32::from(self.reverse) << 1 | u32::from(self.use_sender) << 2;
        [
            u32::from(tag)
                | u32::from(self.core_port.0) << 8
                | op << 16
                | u32::from(self.timeout.0 & 15) << 24
                | flags << 28,
            u32::from(self.port) | u32::from(self.chip.0) << 16,
            u32::from_le_bytes(self.ip),
        ]
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.ip;
        if self.reverse {
            return write!(f, "from port {} to {},{}", self.port, self.chip, self.core_port);
        } else if self.use_sender {
            f.write_str("to sender")?;
        } else {
            write!(f, "to {a}.{b}.{c}.{d}:{}", self.port)?;
        }
        f.write_str(if self.strip { " stripped" } else { "" })
    }
}

/// What IPTAG does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Op 0: set a free entry of the pool. Reply: its number or [`TAG_NONE`].
    New(Target),
    /// Op 1: set an entry. Reply: its number.
    Set {
        /// The entry.
        tag: u8,
        /// What it is to be.
        target: Target,
    },
    /// Op 2: read entries. Reply: [`Entry`] times `count`, of which 8 fit.
    Get {
        /// The first.
        tag: u8,
        /// How many.
        count: u32,
    },
    /// Op 3: clear an entry. Reply empty.
    Clear {
        /// The entry.
        tag: u8,
    },
    /// Op 4: read the time-out of transient tags, and set it if a value is given. Reply: [`TableInfo`].
    TransientTimeout {
        /// The new one, below 16.
        timeout: Option<TimeoutCode>,
    },
}

impl Command {
    /// Reads the argument words.
    ///
    /// # Errors
    /// [`WireError::Field`] for an unknown operation or a tag that no table has.
    pub fn parse(args: [u32; 3]) -> Result<Self> {
        let [arg1, arg2, _] = args;
        let tag = arg1 as u8;
        let op = field(arg1, 16, 8);
        if op > 4 {
            return Err(WireError::Field { what: "IPTAG operation", value: op });
        }
        if tag >= TAGS {
            return Err(WireError::Field { what: "IP tag", value: tag.into() });
        }
        Ok(match op {
            0 => Self::New(Target::parse(args)),
            1 => Self::Set { tag, target: Target::parse(args) },
            2 => Self::Get { tag, count: arg2 },
            3 => Self::Clear { tag },
            _ => Self::TransientTimeout { timeout: (arg2 < 16).then_some(TimeoutCode(arg2 as u8)) },
        })
    }

    /// The argument words.
    ///
    /// # Errors
    /// [`WireError::Field`] for a time-out that four bits do not hold.
    pub fn arguments(self) -> Result<[u32; 3]> {
        Ok(match self {
            Self::New(target) => {
                fits("IP tag time-out", target.timeout.0.into(), 4)?;
                target.arguments(0, 0)
            }
            Self::Set { tag, target } => {
                fits("IP tag time-out", target.timeout.0.into(), 4)?;
                target.arguments(1, tag)
            }
            Self::Get { tag, count } => [2 << 16 | u32::from(tag), count, 0],
            Self::Clear { tag } => [3 << 16 | u32::from(tag), 0, 0],
            Self::TransientTimeout { timeout: None } => [4 << 16, 16, 0],
            Self::TransientTimeout { timeout: Some(code) } => [4 << 16, fits("IP tag time-out", code.0.into(), 4)?, 0],
        })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New(target) => write!(f, "new {target}"),
            Self::Set { tag, target } => write!(f, "set {tag} {target}"),
            Self::Get { tag, count } => write!(f, "get {count} from {tag}"),
            Self::Clear { tag } => write!(f, "clear {tag}"),
            Self::TransientTimeout { timeout } => write!(f, "transient time-out {timeout:?}"),
        }
    }
}

/// The reply to [`Command::TransientTimeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TableInfo {
    /// Time-out of transient tags, a [`TimeoutCode`].
    pub timeout: u8,
    /// Bytes of an [`Entry`].
    pub entry_bytes: u8,
    /// Entries of the pool.
    pub pool: u8,
    /// Entries of the user.
    pub fixed: u8,
}

impl TableInfo {
    /// Reads the payload of the reply.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn read(payload: &[u8]) -> Result<&Self> {
        Ok(prefix("IP tag table", payload)?.0)
    }
}
