//! Payloads of replies.

use core::fmt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::CommandCode;
use crate::bytes::{Writer, field, prefix, text_until_nul};
use crate::router::P2pRoute;
use crate::vcpu::CoreState;
use crate::{ChipAddress, Result, WireError};

/// The first word of a payload (ALLOC, COUNT, IPTAG NEW and SET, RTR's fixed route).
///
/// # Errors
/// [`WireError::Truncated`]: SC&MP 4.0.0 says that a command failed by leaving the data out.
pub fn word_reply(command: CommandCode, payload: &[u8]) -> Result<u32> {
    let what = match command {
        CommandCode::Alloc => "ALLOC reply",
        CommandCode::Count => "COUNT reply",
        CommandCode::IpTag => "IPTAG reply",
        CommandCode::Router => "RTR reply",
        _ => "reply",
    };
    Ok(prefix::<U32>(what, payload)?.0.get())
}

/// Fixed part of VER's reply; texts follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VersionPayload {
    /// Virtual core (BMP: board).
    pub virtual_core: u8,
    /// Physical core (BMP: CAN id).
    pub physical_core: u8,
    /// The chip (BMP: frame in the low byte, flash block in the high one); 0xFFFF from a monitor that is not up yet.
    pub chip: U16,
    /// The most data of a request.
    pub buffer_bytes: U16,
    /// 0xFFFF: a second text has the version; else version * 100.
    pub version: U16,
    /// Build time, Unix seconds.
    pub build_time_s: U32,
}

const _: () = assert!(size_of::<VersionPayload>() == 12);

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    /// Virtual core (BMP: board).
    pub virtual_core: u8,
    /// Physical core (BMP: CAN id).
    pub physical_core: u8,
    /// The chip; [`ChipAddress::ROOT`] from a monitor that is still setting up.
    pub chip: ChipAddress,
    /// The most data of a request.
    pub buffer_bytes: u16,
    /// Build time, Unix seconds.
    pub build_time_s: u32,
    /// Name of the kernel: `SC&MP`, `SARK`, `BC&MP`.
    pub name: &'a str,
    /// What it runs on.
    pub hardware: &'a str,
    /// Major, minor, patch.
    pub number: (u16, u16, u16),
}

/// In the version field: the version is a text.
const VERSION_IN_TEXT: u16 = 0xFFFF;

impl<'a> Version<'a> {
    /// Reads the payload of a reply.
    ///
    /// # Errors
    /// [`WireError::Truncated`]; [`WireError::Field`] for a version text that is not numbers and dots.
    pub fn parse(payload: &'a [u8]) -> Result<Self> {
        let (fixed, texts) = prefix::<VersionPayload>("VER reply", payload)?;
        let title = text_until_nul(texts);
        let (name, hardware) = title.split_once('/').unwrap_or((title, ""));
        let number = match fixed.version.get() {
            VERSION_IN_TEXT => {
                let text = text_until_nul(texts.get(title.len() + 1..).unwrap_or_default());
                version_number(text).ok_or(WireError::Field { what: "version text", value: text.len() as u32 })?
            }
            old => (old / 100, old % 100, 0),
        };
        Ok(Self {
            virtual_core: fixed.virtual_core,
            physical_core: fixed.physical_core,
            chip: ChipAddress(fixed.chip.get()),
            buffer_bytes: fixed.buffer_bytes.get(),
            build_time_s: fixed.build_time_s.get(),
            name,
            hardware,
            number,
        })
    }

    /// Writes the payload in the form with texts and returns its length.
    ///
    /// # Errors
    /// [`WireError::BufferTooSmall`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        let mut writer = Writer::new(buffer);
        writer.put_struct(&VersionPayload {
            virtual_core: self.virtual_core,
            physical_core: self.physical_core,
            chip: U16::new(self.chip.0),
            buffer_bytes: U16::new(self.buffer_bytes),
            version: U16::new(VERSION_IN_TEXT),
            build_time_s: U32::new(self.build_time_s),
        })?;
        for part in [self.name, "/", self.hardware, "\0"] {
            writer.put(part.as_bytes())?;
        }
        let (major, minor, patch) = self.number;
        for (number, end) in [(major, b"."), (minor, b"."), (patch, b"\0")] {
            put_decimal(&mut writer, number)?;
            writer.put(end)?;
        }
        Ok(writer.finish())
    }
}

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.number;
        write!(f, "{}/{} {major}.{minor}.{patch} on {},{}", self.name, self.hardware, self.chip, self.virtual_core)
    }
}

fn version_number(text: &str) -> Option<(u16, u16, u16)> {
    let mut numbers = text.split('.').map(|part| part.parse::<u16>().ok());
    let number = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(number)
}

fn put_decimal(writer: &mut Writer<'_>, number: u16) -> Result<()> {
    let mut digits = [0; 5];
    let mut rest = number;
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return writer.put(&digits[first..]);
        }
    }
}

/// INFO's reply as it lies in the payload; older monitors leave the last two bytes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ChipInfoPayload {
    /// Bits 4:0 cores, 13:8 links, 24:14 largest free block of routing entries, 25 Ethernet up.
    pub flags: U32,
    /// Bytes of the largest free block in SDRAM.
    pub sdram_bytes: U32,
    /// Bytes of the largest free block in system RAM.
    pub sysram_bytes: U32,
    /// States of virtual cores.
    pub states: [u8; 18],
    /// The Ethernet chip of this board.
    pub ethernet_chip: U16,
    /// IP address of this chip.
    pub ip: [u8; 4],
}

const _: () = assert!(size_of::<ChipInfoPayload>() == 36);

/// Facts of a chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChipInfo {
    /// Working cores with the monitor, five bits.
    pub cores: u8,
    /// Working links, bit n for link n, six bits.
    pub links: u8,
    /// The largest free block of routing entries, eleven bits.
    pub routes_free: u16,
    /// Whether Ethernet is up.
    pub ethernet_up: bool,
    /// Bytes of the largest free block in SDRAM.
    pub sdram_bytes: u32,
    /// Bytes of the largest free block in system RAM.
    pub sysram_bytes: u32,
    /// States of virtual cores 0..=17 ([`CoreState::Dead`] for those that are not there).
    pub states: [CoreState; 18],
    /// The Ethernet chip of this board.
    pub ethernet_chip: ChipAddress,
    /// IP address, if the chip has one.
    pub ip: Option<[u8; 4]>,
    /// The way to the root chip; `None` from older monitors.
    pub parent: Option<P2pRoute>,
}

impl ChipInfo {
    /// Bytes of the reply.
    pub const BYTES: usize = 38;

    /// Reads the payload of a reply.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let (fixed, rest) = prefix::<ChipInfoPayload>("INFO reply", payload)?;
        let flags = fixed.flags.get();
        Ok(Self {
            cores: field(flags, 0, 5) as u8,
            links: field(flags, 8, 6) as u8,
            routes_free: field(flags, 14, 11) as u16,
            ethernet_up: field(flags, 25, 1) != 0,
            sdram_bytes: fixed.sdram_bytes.get(),
            sysram_bytes: fixed.sysram_bytes.get(),
            states: fixed.states.map(CoreState::from_raw),
            ethernet_chip: ChipAddress(fixed.ethernet_chip.get()),
            ip: (fixed.ip != [0; 4]).then_some(fixed.ip),
            parent: rest.first().map(|raw| P2pRoute::from_raw(*raw)),
        })
    }

    /// Writes the payload and returns its length; of fields with few bits those that fit.
    ///
    /// # Errors
    /// [`WireError::BufferTooSmall`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        let flags = u32::from(self.cores & 0x1F)
            | u32::from(self.links & 0x3F) << 8
            | u32::from(self.routes_free & 0x7FF) << 14
            | u32::from(self.ethernet_up) << 25;
        let mut writer = Writer::new(buffer);
        writer.put_struct(&ChipInfoPayload {
            flags: U32::new(flags),
            sdram_bytes: U32::new(self.sdram_bytes),
            sysram_bytes: U32::new(self.sysram_bytes),
            states: self.states.map(CoreState::raw),
            ethernet_chip: U16::new(self.ethernet_chip.0),
            ip: self.ip.unwrap_or_default(),
        })?;
        if let Some(parent) = self.parent {
            writer.put(&[parent.raw(), 0])?;
        }
        Ok(writer.finish())
    }
}

impl fmt::Display for ChipInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cores, links {:#04x}, {} routes free, {} bytes SDRAM, Ethernet {} at {}",
            self.cores,
            self.links,
            self.routes_free,
            self.sdram_bytes,
            if self.ethernet_up { "up" } else { "down" },
            self.ethernet_chip
        )
    }
}

/// Reply of [`super::AllocCommand::SdramSpace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SdramSpace {
    /// Free bytes in all.
    pub free_bytes: U32,
    /// Bytes of the largest block.
    pub largest_bytes: U32,
}

impl SdramSpace {
    /// Reads the payload of a reply.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn read(payload: &[u8]) -> Result<&Self> {
        Ok(prefix("ALLOC space", payload)?.0)
    }
}
