//! What requests mean.

use core::fmt;

use zerocopy::little_endian::{U16, U32};

use super::{
    AllocCommand, Arguments, CommandCode, DATA_BYTES_MAX, Header, Packet, RouterCommand, SignalTransport, SignalWord,
    StartWord,
};
use crate::bytes::{Hex, Writer, field, fits, range};
use crate::{AppId, LinkId, Result, Unit, WireError, iptag, vcpu::CoreState};

/// A request: its sequence number and what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Returned with the reply.
    pub seq: u16,
    /// What is wanted.
    pub command: Command<'a>,
}

impl<'a> Request<'a> {
    /// Reads the body of an SDP message to SC&MP or SARK.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 16 bytes or where data are missing, [`WireError::Field`] for arguments that the
    /// command does not have. A command without a name is no error: [`Command::Other`].
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let packet = Packet::new_checked(body)?;
        let (args, data) = packet.arguments()?;
        let args = [args.arg1.get(), args.arg2.get(), args.arg3.get()];
        Ok(Self { seq: packet.seq(), command: Command::parse(packet.command_code(), args, data)? })
    }

    /// The length in bytes that [`Request::emit`] writes.
    pub fn buffer_len(&self) -> usize {
        16 + self.command.data().len()
    }

    /// Writes the body of an SDP message and returns its length.
    ///
    /// # Errors
    /// [`WireError::TooLong`] for more than 256 bytes of data, [`WireError::Field`] for values that their bits do not
    /// hold, [`WireError::BufferTooSmall`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        let data = self.command.data();
        if data.len() > DATA_BYTES_MAX {
            return Err(WireError::TooLong { what: "SCP data", limit_bytes: DATA_BYTES_MAX, got_bytes: data.len() });
        }
        let [arg1, arg2, arg3] = self.command.arguments()?.map(U32::new);
        let mut writer = Writer::new(buffer);
        writer.put_struct(&Header { cmd_rc: U16::new(self.command.code().raw()), seq: U16::new(self.seq) })?;
        writer.put_struct(&Arguments { arg1, arg2, arg3 })?;
        writer.put(data)?;
        Ok(writer.finish())
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scp seq {} {}", self.seq, self.command)
    }
}

/// What a request asks for. "Reply" is the payload that follows the return code; empty unless said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Who answers there. Reply: [`super::Version`].
    Version,
    /// Read memory as the addressed core sees it. Reply: the bytes.
    Read {
        /// Where.
        address: u32,
        /// How much; a kernel refuses more than 256.
        length_bytes: u32,
        /// By what accesses.
        unit: Unit,
    },
    /// Write memory as the addressed core sees it.
    Write {
        /// Where.
        address: u32,
        /// By what accesses.
        unit: Unit,
        /// What.
        data: &'a [u8],
    },
    /// Fill memory.
    Fill {
        /// Where; a multiple of 4.
        address: u32,
        /// With what.
        word: u32,
        /// How much; a multiple of 4.
        length_bytes: u32,
    },
    /// Count an application's cores in a state, on the board of the addressed Ethernet chip. Reply: a word.
    Count {
        /// The application.
        app: AppId,
        /// The state.
        state: CoreState,
    },
    /// Take a core out of service; all other applications' cores restart.
    Remap {
        /// Its number.
        core: u32,
        /// Whether that is the physical number.
        physical: bool,
    },
    /// Read a neighbour's memory. Reply: the bytes.
    LinkRead {
        /// Where; a multiple of 4.
        address: u32,
        /// How much; at most 256.
        length_bytes: u32,
        /// Which neighbour.
        link: LinkId,
    },
    /// Write a neighbour's memory.
    LinkWrite {
        /// Where; a multiple of 4.
        address: u32,
        /// Which neighbour.
        link: LinkId,
        /// What.
        data: &'a [u8],
    },
    /// Start the application that lies in the staging area.
    ApplicationRun(StartWord),
    /// Start an application.
    ApplicationStart {
        /// Where its APLX lies.
        address: u32,
        /// Its number and cores.
        start: StartWord,
    },
    /// Copy an APLX from a neighbour's staging area to the own one, and start it.
    ApplicationCopyRun {
        /// Which neighbour.
        link: LinkId,
        /// The sum of its words modulo 2^29; 0 for no check.
        checksum: u32,
        /// How much; a multiple of 4.
        length_bytes: u32,
        /// Its number and cores.
        start: StartWord,
    },
    /// Send a nearest-neighbour packet.
    NearestNeighbour {
        /// The key, without check sum.
        key: u32,
        /// The payload.
        payload: u32,
        /// How it is sent.
        control: NnpControl,
    },
    /// Send a signal.
    Signal {
        /// How it spreads.
        transport: SignalTransport,
        /// What and to whom.
        word: SignalWord,
    },
    /// Send a block of flood-fill data.
    FloodFillData(FloodBlock<'a>),
    /// Switch LEDs; two bits each from bit 0 on, see [`LedAction`].
    Led(u32),
    /// IP tags. Replies: see [`iptag::Command`].
    IpTag(iptag::Command),
    /// Serial ROM. Reply: the bytes read.
    SerialRom(SerialRomAccess),
    /// SDRAM and routing entries: allocate and free. Replies: see [`AllocCommand`].
    Alloc(AllocCommand),
    /// The routing table. Replies: see [`RouterCommand`].
    Router(RouterCommand),
    /// Facts of a chip. Reply: [`super::ChipInfo`].
    Info,
    /// Time synchronisation by the root chip on or off.
    Sync(bool),
    /// Any other command.
    Other {
        /// Its code.
        code: CommandCode,
        /// Its arguments.
        args: [u32; 3],
        /// What follows.
        data: &'a [u8],
    },
}

impl<'a> Command<'a> {
    /// Reads code, arguments and data. Data behind what a command uses are ignored.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Field`].
    pub fn parse(code: CommandCode, args: [u32; 3], data: &'a [u8]) -> Result<Self> {
        let [arg1, arg2, arg3] = args;
        Ok(match code {
            CommandCode::Version => Self::Version,
            CommandCode::Read => Self::Read { address: arg1, length_bytes: arg2, unit: Unit::from_raw(arg3) },
            CommandCode::Write => {
                let data = range("WRITE data", data, 0, arg2 as usize)?;
                Self::Write { address: arg1, unit: Unit::from_raw(arg3), data }
            }
            CommandCode::Fill => Self::Fill { address: arg1, word: arg2, length_bytes: arg3 },
            CommandCode::Count => Self::Count {
                app: AppId(fits("COUNT application", arg1, 8)? as u8),
                state: CoreState::from_raw(fits("COUNT state", arg2, 8)? as u8),
            },
            CommandCode::Remap => Self::Remap { core: arg1, physical: arg2 & 1 != 0 },
            CommandCode::LinkRead => Self::LinkRead { address: arg1, length_bytes: arg2, link: link(arg3)? },
            CommandCode::LinkWrite => {
                let data = range("LINK_WRITE data", data, 0, arg2 as usize)?;
                Self::LinkWrite { address: arg1, link: link(arg3)?, data }
            }
            CommandCode::ApplicationRun => Self::ApplicationRun(StartWord::parse(arg1)),
            CommandCode::ApplicationStart => Self::ApplicationStart { address: arg1, start: StartWord::parse(arg2) },
            CommandCode::ApplicationCopyRun => Self::ApplicationCopyRun {
                link: link(arg1 & 7)?,
                checksum: arg1 >> 3,
                length_bytes: arg2,
                start: StartWord::parse(arg3),
            },
            CommandCode::NearestNeighbour => {
                Self::NearestNeighbour { key: arg1, payload: arg2, control: NnpControl(arg3) }
            }
            CommandCode::Signal => {
                Self::Signal { transport: SignalTransport::from_raw(arg1), word: SignalWord::parse(arg2) }
            }
            CommandCode::FloodFillData => Self::FloodFillData(FloodBlock::parse(args, data)?),
            CommandCode::Led => Self::Led(arg1),
            CommandCode::IpTag => Self::IpTag(iptag::Command::parse(args)?),
            CommandCode::SerialRom => Self::SerialRom(SerialRomAccess::parse([arg1, arg2])),
            CommandCode::Alloc => Self::Alloc(AllocCommand::parse(args)?),
            CommandCode::Router => Self::Router(RouterCommand::parse(args)?),
            CommandCode::Info => Self::Info,
            CommandCode::Sync => Self::Sync(arg1 != 0),
            _ => Self::Other { code, args, data },
        })
    }

    /// Its code.
    pub const fn code(&self) -> CommandCode {
        match self {
            Self::Version => CommandCode::Version,
            Self::Read { .. } => CommandCode::Read,
            Self::Write { .. } => CommandCode::Write,
            Self::Fill { .. } => CommandCode::Fill,
            Self::Count { .. } => CommandCode::Count,
            Self::Remap { .. } => CommandCode::Remap,
            Self::LinkRead { .. } => CommandCode::LinkRead,
            Self::LinkWrite { .. } => CommandCode::LinkWrite,
            Self::ApplicationRun(_) => CommandCode::ApplicationRun,
            Self::ApplicationStart { .. } => CommandCode::ApplicationStart,
            Self::ApplicationCopyRun { .. } => CommandCode::ApplicationCopyRun,
            Self::NearestNeighbour { .. } => CommandCode::NearestNeighbour,
            Self::Signal { .. } => CommandCode::Signal,
            Self::FloodFillData(_) => CommandCode::FloodFillData,
            Self::Led(_) => CommandCode::Led,
            Self::IpTag(_) => CommandCode::IpTag,
            Self::SerialRom(_) => CommandCode::SerialRom,
            Self::Alloc(_) => CommandCode::Alloc,
            Self::Router(_) => CommandCode::Router,
            Self::Info => CommandCode::Info,
            Self::Sync(_) => CommandCode::Sync,
            Self::Other { code, .. } => *code,
        }
    }

    /// Its argument words.
    ///
    /// # Errors
    /// [`WireError::Field`] for values that their bits do not hold.
    pub fn arguments(&self) -> Result<[u32; 3]> {
        Ok(match *self {
            Self::Version | Self::Info => [0; 3],
            Self::Read { address, length_bytes, unit } => [address, length_bytes, unit.raw()],
            Self::Write { address, unit, data } => [address, data.len() as u32, unit.raw()],
            Self::Fill { address, word, length_bytes } => [address, word, length_bytes],
            Self::Count { app, state } => [app.0.into(), state.raw().into(), 0],
            Self::Remap { core, physical } => [core, physical.into(), 0],
            Self::LinkRead { address, length_bytes, link } => [address, length_bytes, link.raw().into()],
            Self::LinkWrite { address, link, data } => [address, data.len() as u32, link.raw().into()],
            Self::ApplicationRun(start) => [start.word(), 0, 0],
            Self::ApplicationStart { address, start } => [address, start.word(), 0],
            Self::ApplicationCopyRun { link, checksum, length_bytes, start } => {
                let link = fits("link", link.raw().into(), 3)?;
                [link | fits("APP_COPY_RUN check sum", checksum, 29)? << 3, length_bytes, start.word()]
            }
            Self::NearestNeighbour { key, payload, control } => [key, payload, control.0],
            Self::Signal { transport, word } => [transport.raw(), word.word(), 0xFFFF],
            Self::FloodFillData(block) => block.arguments()?,
            Self::Led(actions) => [actions, 0, 0],
            Self::IpTag(command) => command.arguments()?,
            Self::SerialRom(access) => access.arguments()?,
            Self::Alloc(command) => command.arguments(),
            Self::Router(command) => command.arguments(),
            Self::Sync(on) => [on.into(), 0, 0],
            Self::Other { args, .. } => args,
        })
    }

    /// The data behind its arguments.
    pub const fn data(&self) -> &'a [u8] {
        match self {
            Self::Write { data, .. } | Self::LinkWrite { data, .. } | Self::Other { data, .. } => data,
            Self::FloodFillData(block) => block.data,
            _ => &[],
        }
    }
}

fn link(raw: u32) -> Result<LinkId> {
    match u8::try_from(raw) {
        Ok(raw) => Ok(LinkId::from_raw(raw)),
        Err(_) => Err(WireError::Field { what: "link", value: raw }),
    }
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code())?;
        match self {
            Self::Version | Self::Info => Ok(()),
            Self::Read { address, length_bytes, unit } => write!(f, " {address:#x}+{length_bytes} {unit}"),
            Self::Write { address, unit, data } => write!(f, " {address:#x} {unit} {}", Hex(data)),
            Self::Fill { address, word, length_bytes } => write!(f, " {address:#x}+{length_bytes} {word:#x}"),
            Self::Count { app, state } => write!(f, " {app} {state}"),
            Self::Remap { core, physical } => {
                write!(f, " {} core {core}", if *physical { "physical" } else { "virtual" })
            }
            Self::LinkRead { address, length_bytes, link } => write!(f, " {link} {address:#x}+{length_bytes}"),
            Self::LinkWrite { address, link, data } => write!(f, " {link} {address:#x} {}", Hex(data)),
            Self::ApplicationRun(start) => write!(f, " {start}"),
            Self::ApplicationStart { address, start } => write!(f, " {address:#x} {start}"),
            Self::ApplicationCopyRun { link, length_bytes, start, .. } => {
                write!(f, " {link} {length_bytes} bytes {start}")
            }
            Self::NearestNeighbour { key, payload, control } => {
                write!(f, " {key:#010x} {payload:#010x} {:#010x}", control.0)
            }
            Self::Signal { transport, word } => write!(f, " {word} by {transport}"),
            Self::FloodFillData(block) => write!(f, " {block}"),
            Self::Led(actions) => write!(f, " {actions:#x}"),
            Self::IpTag(command) => write!(f, " {command}"),
            Self::SerialRom(access) => write!(f, " {access}"),
            Self::Alloc(command) => write!(f, " {command}"),
            Self::Router(command) => write!(f, " {command}"),
            Self::Sync(on) => f.write_str(if *on { " on" } else { " off" }),
            Self::Other { args: [a, b, c], data, .. } => write!(f, " {a:#x} {b:#x} {c:#x} {}", Hex(data)),
        }
    }
}

/// What LED does to one LED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LedAction {
    /// As it is.
    Leave = 0,
    /// The other way.
    Toggle = 1,
    /// Off.
    Off = 2,
    /// On.
    On = 3,
}

impl LedAction {
    /// The argument that does this to LED `led`, 0..=15 (a higher number does nothing); join several by "or".
    pub const fn for_led(self, led: u8) -> u32 {
        if led < 16 { (self as u32) << (2 * led) } else { 0 }
    }
}

/// Third argument of NNP: bit 31 adds a fresh packet id to the key; bits 15:8 are the links, bits 7:3 times 8 the
/// microseconds before each packet, bits 2:0 the number of repeats.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NnpControl(pub u32);

impl NnpControl {
    /// Links, repeats (three bits) and delay in units of 8 microseconds (five bits).
    pub const fn new(add_id: bool, links: u8, repeats: u8, delay_8_us: u8) -> Self {
        let repeat = (repeats & 7) as u32 | ((delay_8_us & 31) as u32) << 3;
        Self((add_id as u32) << 31 | (links as u32) << 8 | repeat)
    }

    /// Links, bit n for link n.
    pub const fn links(self) -> u8 {
        (self.0 >> 8) as u8
    }
}

impl fmt::Debug for NnpControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NnpControl({:#010x})", self.0)
    }
}

/// A block of flood-fill data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodBlock<'a> {
    /// Links that it is sent to, bit n for link n.
    pub links: u8,
    /// Repeats and delay, as bits 7:0 of [`NnpControl`].
    pub repeat: u8,
    /// The fill's number (even, 2..=254), 16 bits.
    pub id: u16,
    /// The block's number.
    pub block: u16,
    /// Where the data go.
    pub address: u32,
    /// 4..=256 bytes, whole words.
    pub data: &'a [u8],
}

impl<'a> FloodBlock<'a> {
    fn parse([arg1, arg2, arg3]: [u32; 3], data: &'a [u8]) -> Result<Self> {
        let words = field(arg2, 8, 8) as usize + 1;
        Ok(Self {
            links: (arg1 >> 24) as u8,
            repeat: (arg1 >> 16) as u8,
            id: arg1 as u16,
            block: (arg2 >> 16) as u16,
            address: arg3,
            data: range("FFD data", data, 0, words * 4)?,
        })
    }

    fn arguments(&self) -> Result<[u32; 3]> {
        if self.data.is_empty() || !self.data.len().is_multiple_of(4) {
            return Err(WireError::Field { what: "FFD bytes", value: self.data.len() as u32 });
        }
        let words_less_one = fits("FFD words", self.data.len() as u32 / 4 - 1, 8)?;
        let arg1 = u32::from(self.links) << 24 | u32::from(self.repeat) << 16 | u32::from(self.id);
        Ok([arg1, u32::from(self.block) << 16 | words_less_one << 8, self.address])
    }
}

impl fmt::Display for FloodBlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fill {} block {} {:#x} {}", self.id, self.block, self.address, Hex(self.data))
    }
}

/// An access to the serial ROM: command bits out, bytes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SerialRomAccess {
    /// Bytes to read or write.
    pub length_bytes: u16,
    /// Write instead of read.
    pub write: bool,
    /// Send "write enable" first.
    pub write_enable: bool,
    /// Poll until it is no longer busy.
    pub poll: bool,
    /// How many bits of `command` are sent: 8, 16, 24 or 32 (six bits).
    pub command_bits: u8,
    /// The command in bits 31:24, the address behind it.
    pub command: u32,
}

impl SerialRomAccess {
    /// Read bytes of a part with 24 address bits.
    pub const fn read(address: u32, length_bytes: u16) -> Self {
        Self {
            length_bytes,
            write: false,
            write_enable: false,
            poll: false,
            command_bits: 32,
            command: 0x0300_0000 | address & 0x00FF_FFFF,
        }
    }

    fn parse([arg1, arg2]: [u32; 2]) -> Self {
        Self {
            length_bytes: (arg1 >> 16) as u16,
            write: arg1 & 0x100 != 0,
            write_enable: arg1 & 0x80 != 0,
            poll: arg1 & 0x40 != 0,
            command_bits: (arg1 & 0x3F) as u8,
            command: arg2,
        }
    }

    fn arguments(&self) -> Result<[u32; 3]> {
        let flags = u32::from(self.write) << 8 | u32::from(self.write_enable) << 7 | u32::from(self.poll) << 6;
        let bits = fits("SROM command bits", self.command_bits.into(), 6)?;
        Ok([u32::from(self.length_bytes) << 16 | flags | bits, self.command, 0])
    }
}

impl fmt::Display for SerialRomAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.write { "write" } else { "read" };
        write!(f, "{way} {} bytes, command {:#010x}", self.length_bytes, self.command)
    }
}
