//! EIEIO: many keys, with payloads or without, in one datagram; and the commands around them.

use core::fmt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{Hex, Writer, fits, prefix, range, valid_utf8};
use crate::{ChipAddress, Result, WireError};

/// The most bytes of a packet that official binaries take, its header included.
pub const BYTES_MAX: usize = 256;
/// The most items that the count holds.
pub const ITEMS_MAX: usize = 255;

const PREFIX_BIT: u16 = 1 << 15;
const UPPER_BIT: u16 = 1 << 14;
const COMMAND_BITS: u16 = 0x3FFF;
const PAYLOAD_PREFIX_BIT: u16 = 1 << 13;
const TIMESTAMP_BIT: u16 = 1 << 12;

/// What an item consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// 16-bit keys.
    Key16,
    /// 16-bit keys and payloads.
    Key16Payload,
    /// 32-bit keys.
    Key32,
    /// 32-bit keys and payloads.
    Key32Payload,
}

impl DataType {
    const fn from_bits(bits: u16) -> Self {
        match bits & 3 {
            0 => Self::Key16,
            1 => Self::Key16Payload,
            2 => Self::Key32,
            _ => Self::Key32Payload,
        }
    }

    const fn bits(self) -> u16 {
        match self {
            Self::Key16 => 0,
            Self::Key16Payload => 1,
            Self::Key32 => 2,
            Self::Key32Payload => 3,
        }
    }

    /// Bytes of a key, and of a payload.
    const fn word_bytes(self) -> usize {
        match self {
            Self::Key16 | Self::Key16Payload => 2,
            Self::Key32 | Self::Key32Payload => 4,
        }
    }

    /// Whether items have payloads.
    pub const fn has_payload(self) -> bool {
        matches!(self, Self::Key16Payload | Self::Key32Payload)
    }

    /// Bytes of an item.
    pub const fn item_bytes(self) -> usize {
        self.word_bytes() * if self.has_payload() { 2 } else { 1 }
    }
}

/// Bits that are joined to every key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyPrefix {
    /// The bits.
    pub value: u16,
    /// Whether they go into the upper half.
    pub upper: bool,
}

/// What the header of a data packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DataRepr {
    /// Joined to every key.
    pub key_prefix: Option<KeyPrefix>,
    /// Joined to every payload, or the payload of items without; 16 bits in packets of 16-bit keys.
    pub payload_prefix: Option<u32>,
    /// Whether payloads are time stamps.
    pub timestamps: bool,
    /// What the items are.
    pub kind: DataType,
    /// Two bits.
    pub tag: u8,
}

impl DataRepr {
    /// A packet of whole 32-bit keys.
    pub const KEYS: Self =
        Self { key_prefix: None, payload_prefix: None, timestamps: false, kind: DataType::Key32, tag: 0 };
    /// A packet of whole 32-bit keys and payloads.
    pub const KEYS_AND_PAYLOADS: Self = Self { kind: DataType::Key32Payload, ..Self::KEYS };

    /// Bytes in front of the items.
    pub const fn header_bytes(&self) -> usize {
        let key_prefix = if self.key_prefix.is_some() { 2 } else { 0 };
        let payload_prefix = if self.payload_prefix.is_some() { self.kind.word_bytes() } else { 0 };
        2 + key_prefix + payload_prefix
    }

    /// How many items fit into so many bytes.
    pub const fn items_max(&self, packet_bytes: usize) -> usize {
        let items = packet_bytes.saturating_sub(self.header_bytes()) / self.kind.item_bytes();
        if items < ITEMS_MAX { items } else { ITEMS_MAX }
    }

    fn put_header(&self, count: u8, writer: &mut Writer<'_>) -> Result<()> {
        let mut bits = u16::from(count) | self.kind.bits() << 10;
        bits |= (fits("EIEIO tag", self.tag.into(), 2)? as u16) << 8;
        bits |= if self.timestamps { TIMESTAMP_BIT } else { 0 };
        bits |= if self.payload_prefix.is_some() { PAYLOAD_PREFIX_BIT } else { 0 };
        if let Some(prefix) = self.key_prefix {
            bits |= PREFIX_BIT | if prefix.upper { UPPER_BIT } else { 0 };
        }
        writer.put_struct(&U16::new(bits))?;
        if let Some(prefix) = self.key_prefix {
            writer.put_struct(&U16::new(prefix.value))?;
        }
        if let Some(prefix) = self.payload_prefix {
            put_word("EIEIO payload prefix", self.kind, prefix, writer)?;
        }
        Ok(())
    }
}

/// An upper prefix without a prefix is no data packet.
fn is_command(bits: u16) -> bool {
    bits & PREFIX_BIT == 0 && bits & UPPER_BIT != 0
}

fn put_word(what: &'static str, kind: DataType, value: u32, writer: &mut Writer<'_>) -> Result<()> {
    match kind.word_bytes() {
        2 => writer.put_struct(&U16::new(fits(what, value, 16)? as u16)),
        _ => writer.put_struct(&U32::new(value)),
    }
}

fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    for (room, byte) in word.iter_mut().zip(bytes) {
        *room = *byte;
    }
    u32::from_le_bytes(word)
}

/// A key and its payload, prefixes joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// The key.
    pub key: u32,
    /// The payload, if items or the packet have one.
    pub payload: Option<u32>,
}

/// A view of a data packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPacket<'a> {
    /// What the header says.
    pub repr: DataRepr,
    /// The items' bytes, exactly as many as the count says.
    items: &'a [u8],
}

impl<'a> DataPacket<'a> {
    fn parse(bits: u16, rest: &'a [u8]) -> Result<Self> {
        let kind = DataType::from_bits(bits >> 10);
        let mut rest = rest;
        let mut key_prefix = None;
        if bits & PREFIX_BIT != 0 {
            let (value, behind) = prefix::<U16>("EIEIO key prefix", rest)?;
            key_prefix = Some(KeyPrefix { value: value.get(), upper: bits & UPPER_BIT != 0 });
            rest = behind;
        }
        let mut payload_prefix = None;
        if bits & PAYLOAD_PREFIX_BIT != 0 {
            let bytes = range("EIEIO payload prefix", rest, 0, kind.word_bytes())?;
            payload_prefix = Some(word(bytes));
            rest = rest.get(kind.word_bytes()..).unwrap_or_default();
        }
        let items_bytes = usize::from(bits & 0xFF) * kind.item_bytes();
        let items = range("EIEIO items", rest, 0, items_bytes)?;
        let tag = (bits >> 8 & 3) as u8;
        let repr = DataRepr { key_prefix, payload_prefix, timestamps: bits & TIMESTAMP_BIT != 0, kind, tag };
        Ok(Self { repr, items })
    }

    /// How many items.
    pub fn len(&self) -> usize {
        self.items.len() / self.repr.kind.item_bytes()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items, prefixes joined.
    pub fn items(&self) -> impl ExactSizeIterator<Item = Item> + 'a {
        let repr = self.repr;
        let word_bytes = repr.kind.word_bytes();
        let (prefix, payload_prefix) = (repr.key_prefix, repr.payload_prefix);
        let key_prefix = prefix.map_or(0, |p| if p.upper { u32::from(p.value) << 16 } else { u32::from(p.value) });
        self.items.chunks_exact(repr.kind.item_bytes()).map(move |item| {
            let (key, payload) = item.split_at(word_bytes);
            let payload = match (repr.kind.has_payload(), payload_prefix) {
                (true, prefix) => Some(word(payload) | prefix.unwrap_or(0)),
                (false, prefix) => prefix,
            };
            Item { key: word(key) | key_prefix, payload }
        })
    }

    /// Writes the packet as it was and returns its length.
    ///
    /// # Errors
    /// [`WireError::BufferTooSmall`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        let mut writer = Writer::new(buffer);
        self.repr.put_header(self.len() as u8, &mut writer)?;
        writer.put(self.items)?;
        Ok(writer.finish())
    }
}

impl fmt::Display for DataPacket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eieio {} items", self.len())?;
        for item in self.items().take(8) {
            write!(f, " {:#x}", item.key)?;
            if let Some(payload) = item.payload {
                write!(f, "={payload:#x}")?;
            }
        }
        f.write_str(if self.len() > 8 { " .." } else { "" })
    }
}

/// Makes a data packet item by item in a buffer.
pub struct DataWriter<'a> {
    repr: DataRepr,
    buffer: &'a mut [u8],
    used_bytes: usize,
    count: u8,
}

impl<'a> DataWriter<'a> {
    /// Begins a packet; the buffer's length is the most that it will have.
    ///
    /// # Errors
    /// [`WireError::BufferTooSmall`]; [`WireError::Field`] for a tag or prefix that its bits do not hold.
    pub fn new(repr: DataRepr, buffer: &'a mut [u8]) -> Result<Self> {
        let mut writer = Writer::new(buffer);
        repr.put_header(0, &mut writer)?;
        let used_bytes = writer.finish();
        Ok(Self { repr, buffer, used_bytes, count: 0 })
    }

    /// Adds an item as it will lie in the packet, prefixes not joined. Of a payload where items have none nothing remains, a
    /// missing one is 0.
    ///
    /// # Errors
    /// [`WireError::BufferTooSmall`] if the packet is full, [`WireError::Field`] for a key or payload of more than 16 bits
    /// where there are 16; the packet is then as it was.
    pub fn push(&mut self, key: u32, payload: Option<u32>) -> Result<()> {
        let room = self.buffer.get_mut(self.used_bytes..).unwrap_or_default();
        if usize::from(self.count) == ITEMS_MAX {
            let needed_bytes = self.used_bytes + self.repr.kind.item_bytes();
            return Err(WireError::BufferTooSmall { needed_bytes, got_bytes: self.used_bytes });
        }
        let mut writer = Writer::new(room);
        put_word("EIEIO key", self.repr.kind, key, &mut writer)?;
        if self.repr.kind.has_payload() {
            put_word("EIEIO payload", self.repr.kind, payload.unwrap_or(0), &mut writer)?;
        }
        self.used_bytes += writer.finish();
        self.count += 1;
        Ok(())
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The packet.
    pub fn finish(self) -> &'a [u8] {
        // The count is the first byte of the header.
        if let Some(first) = self.buffer.first_mut() {
            *first = self.count;
        }
        self.buffer.get(..self.used_bytes).unwrap_or_default()
    }
}

/// A core asks for input: it has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RequestBuffers {
    /// Row.
    pub y: u8,
    /// Column.
    pub x: u8,
    /// Core in bits 7:3.
    pub core_shifted: u8,
    /// Unused.
    pub pad: u8,
    /// Region, four bits.
    pub region: u8,
    /// Number of the request.
    pub sequence: u8,
    /// Bytes that are free.
    pub space_bytes: U32,
}

const _: () = assert!(size_of::<RequestBuffers>() == 10);

impl RequestBuffers {
    /// Who asks: chip and core.
    pub fn core(&self) -> (ChipAddress, u8) {
        (ChipAddress::new(self.x, self.y), self.core_shifted >> 3)
    }
}

/// Head of a core's request that output be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReadDataHead {
    x: u8,
    y: u8,
    core_and_count: u8,
    sequence: u8,
}

/// What is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReadRequest {
    /// Channel.
    pub channel: u8,
    /// Region.
    pub region: u8,
    /// From where.
    pub address: U32,
    /// How much.
    pub length_bytes: U32,
}

/// What has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReadDone {
    /// Unused.
    pub pad: U16,
    /// Channel.
    pub channel: u8,
    /// Region.
    pub region: u8,
    /// How much.
    pub length_bytes: U32,
}

const _: () = assert!(size_of::<ReadRequest>() == 10 && size_of::<ReadDone>() == 8);

/// Bytes in front of the second and later [`ReadRequest`]s.
const READ_REQUEST_PAD_BYTES: usize = 2;

/// A core asks that output be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadData<'a> {
    /// The chip.
    pub chip: ChipAddress,
    /// The core, five bits.
    pub core: u8,
    /// Number of the request.
    pub sequence: u8,
    /// How many requests, three bits.
    count: u8,
    requests: &'a [u8],
}

impl<'a> ReadData<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (head, rest) = prefix::<ReadDataHead>("EIEIO read request", bytes)?;
        let count = head.core_and_count & 7;
        let requests = range("EIEIO read requests", rest, 0, Self::requests_bytes(count.into()))?;
        Ok(Self {
            chip: ChipAddress::new(head.x, head.y),
            core: head.core_and_count >> 3,
            sequence: head.sequence,
            count,
            requests,
        })
    }

    fn requests_bytes(count: usize) -> usize {
        count * size_of::<ReadRequest>() + count.saturating_sub(1) * READ_REQUEST_PAD_BYTES
    }

    /// The requests.
    pub fn requests(&self) -> impl Iterator<Item = &'a ReadRequest> + 'a {
        let requests = self.requests;
        let stride = size_of::<ReadRequest>() + READ_REQUEST_PAD_BYTES;
        (0..usize::from(self.count)).map_while(move |i| {
            let bytes = requests.get(i * stride..)?;
            Some(ReadRequest::ref_from_prefix(bytes).ok()?.0)
        })
    }

    /// Writes the packet, with its header, and returns its length.
    ///
    /// # Errors
    /// [`WireError::Field`] for more than seven requests or a core above 31, [`WireError::BufferTooSmall`].
    pub fn emit(
        chip: ChipAddress,
        core: u8,
        sequence: u8,
        requests: &[ReadRequest],
        buffer: &mut [u8],
    ) -> Result<usize> {
        let count = fits("EIEIO read requests", requests.len() as u32, 3)? as u8;
        let core = fits("EIEIO core", core.into(), 5)? as u8;
        let mut writer = Writer::new(buffer);
        writer.put_struct(&U16::new(UPPER_BIT | CommandCode::ReadData.raw()))?;
        writer.put_struct(&ReadDataHead { x: chip.x(), y: chip.y(), core_and_count: core << 3 | count, sequence })?;
        for (i, request) in requests.iter().enumerate() {
            if i > 0 {
                writer.put(&[0; READ_REQUEST_PAD_BYTES])?;
            }
            writer.put_struct(request)?;
        }
        Ok(writer.finish())
    }
}

crate::bytes::raw_enum! {
    /// Number of a command; 14 bits.
    pub enum CommandCode(u16) {
        /// Where the host keeps its data base; between hosts.
        Database = 1 "DATABASE",
        /// Nothing.
        Padding = 2 "EVENT_PADDING",
        /// No more events.
        EventStop = 3 "EVENT_STOP",
        /// Do not ask for input.
        StopRequests = 4 "STOP_SENDING_REQUESTS",
        /// Ask for input.
        StartRequests = 5 "START_SENDING_REQUESTS",
        /// A core asks for input.
        RequestBuffers = 6 "REQUEST_BUFFERS",
        /// Input.
        SequencedData = 7 "SEQUENCED_DATA",
        /// A core asks that output be read.
        ReadData = 8 "READ_DATA",
        /// Output has been read.
        DataRead = 9 "DATA_READ",
        /// The simulation stops or pauses.
        StopPause = 10 "STOP_PAUSE",
        /// The simulation starts or goes on.
        StartResume = 11 "START_RESUME",
        /// A core has understood that output has been read.
        DataReadAck = 12 "DATA_READ_ACK",
    }
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Path of the host's data base.
    Database {
        /// As bytes.
        path: &'a [u8],
    },
    /// A core asks for input.
    RequestBuffers(&'a RequestBuffers),
    /// Input.
    SequencedData {
        /// Region.
        region: u8,
        /// Number of the packet.
        sequence: u8,
        /// Keys.
        data: DataPacket<'a>,
    },
    /// A core asks that output be read.
    ReadData(ReadData<'a>),
    /// Output has been read.
    DataRead {
        /// Number of the request.
        sequence: u8,
        /// How many entries follow.
        count: u8,
        /// The entries' bytes; see [`Command::done`].
        done: &'a [u8],
    },
    /// A core has understood that output has been read.
    DataReadAck {
        /// Number of the request.
        sequence: u8,
    },
    /// A command without a body, or an unknown one with it.
    Other {
        /// Which.
        code: CommandCode,
        /// What follows.
        body: &'a [u8],
    },
}

impl<'a> Command<'a> {
    fn parse(code: CommandCode, body: &'a [u8]) -> Result<Self> {
        Ok(match code {
            CommandCode::Database => Self::Database { path: body },
            CommandCode::RequestBuffers => Self::RequestBuffers(prefix("EIEIO buffer request", body)?.0),
            CommandCode::SequencedData => {
                let (head, rest) = prefix::<[u8; 2]>("EIEIO sequenced data", body)?;
                let (bits, rest) = prefix::<U16>("EIEIO header", rest)?;
                let bits = bits.get();
                if is_command(bits) {
                    return Err(WireError::Field { what: "EIEIO command in sequenced data", value: bits.into() });
                }
                let data = DataPacket::parse(bits, rest)?;
                Self::SequencedData { region: head[0], sequence: head[1], data }
            }
            CommandCode::ReadData => Self::ReadData(ReadData::parse(body)?),
            CommandCode::DataRead => {
                let (head, rest) = prefix::<[u8; 2]>("EIEIO data read", body)?;
                let [count, sequence] = *head;
                let done = range("EIEIO data read", rest, 0, usize::from(count) * size_of::<ReadDone>())?;
                Self::DataRead { sequence, count, done }
            }
            CommandCode::DataReadAck => Self::DataReadAck {
                sequence: range("EIEIO acknowledgement", body, 0, 1)?.first().copied().unwrap_or(0),
            },
            code => Self::Other { code, body },
        })
    }

    /// Its number.
    pub const fn code(&self) -> CommandCode {
        match self {
            Self::Database { .. } => CommandCode::Database,
            Self::RequestBuffers(_) => CommandCode::RequestBuffers,
            Self::SequencedData { .. } => CommandCode::SequencedData,
            Self::ReadData(_) => CommandCode::ReadData,
            Self::DataRead { .. } => CommandCode::DataRead,
            Self::DataReadAck { .. } => CommandCode::DataReadAck,
            Self::Other { code, .. } => *code,
        }
    }

    /// The entries of DATA_READ; none of other commands.
    pub fn done(&self) -> &'a [ReadDone] {
        match self {
            Self::DataRead { done, .. } => <[ReadDone]>::ref_from_bytes(done).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Writes the packet and returns its length.
    ///
    /// # Errors
    /// [`WireError::Field`] for a number of more than 14 bits or entries that are not `count`, [`WireError::BufferTooSmall`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        let code = self.code().raw();
        fits("EIEIO command", code.into(), 14)?;
        let mut writer = Writer::new(buffer);
        writer.put_struct(&U16::new(UPPER_BIT | code))?;
        match self {
            Self::Database { path: body } | Self::Other { body, .. } => writer.put(body)?,
            Self::RequestBuffers(body) => writer.put_struct(*body)?,
            Self::SequencedData { region, sequence, data } => {
                writer.put(&[*region, *sequence])?;
                data.repr.put_header(data.len() as u8, &mut writer)?;
                writer.put(data.items)?;
            }
            Self::ReadData(read) => {
                writer.put_struct(&ReadDataHead {
                    x: read.chip.x(),
                    y: read.chip.y(),
                    core_and_count: read.core << 3 | read.count,
                    sequence: read.sequence,
                })?;
                writer.put(read.requests)?;
            }
            Self::DataRead { sequence, count, done } => {
                if done.len() != usize::from(*count) * size_of::<ReadDone>() {
                    return Err(WireError::Field { what: "EIEIO data read entries", value: (*count).into() });
                }
                writer.put(&[*count, *sequence])?;
                writer.put(done)?;
            }
            Self::DataReadAck { sequence } => writer.put(&[*sequence])?,
        }
        Ok(writer.finish())
    }
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eieio {}", self.code())?;
        match self {
            Self::Database { path } => write!(f, " {:?}", valid_utf8(path)),
            Self::RequestBuffers(request) => {
                let (chip, core) = request.core();
                write!(f, " {chip},{core} region {} seq {}", request.region, request.sequence)
            }
            Self::SequencedData { region, sequence, data } => write!(f, " region {region} seq {sequence}: {data}"),
            Self::ReadData(read) => {
                write!(f, " {},{} seq {}: {} requests", read.chip, read.core, read.sequence, read.count)
            }
            Self::DataRead { sequence, count, .. } => write!(f, " seq {sequence}: {count} entries"),
            Self::DataReadAck { sequence } => write!(f, " seq {sequence}"),
            Self::Other { body, .. } => write!(f, ": {}", Hex(body)),
        }
    }
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Keys.
    Data(DataPacket<'a>),
    /// A command.
    Command(Command<'a>),
}

impl<'a> Packet<'a> {
    /// Reads a packet; bytes behind it are ignored.
    ///
    /// # Errors
    /// [`WireError::Truncated`]; [`WireError::Field`] for a command within data.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (bits, rest) = prefix::<U16>("EIEIO header", bytes)?;
        let bits = bits.get();
        if is_command(bits) {
            return Ok(Self::Command(Command::parse(CommandCode::from_raw(bits & COMMAND_BITS), rest)?));
        }
        Ok(Self::Data(DataPacket::parse(bits, rest)?))
    }

    /// Writes the packet and returns its length.
    ///
    /// # Errors
    /// Those of its kind.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Data(data) => data.emit(buffer),
            Self::Command(command) => command.emit(buffer),
        }
    }
}

impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(data) => data.fmt(f),
            Self::Command(command) => command.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
