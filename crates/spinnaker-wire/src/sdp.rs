//! SDP, the SpiNNaker datagram protocol: eight bytes of header and a body.

use core::fmt;

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{Hex, Writer, prefix};
use crate::{ChipAddress, CorePort, Result, WireError};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;
/// The most that a body holds: an SCP header of 16 bytes and 256 bytes of data.
pub const BODY_BYTES_MAX: usize = 16 + 256;
/// Bytes in front of the header in a UDP datagram; zero to the board, undefined from it.
pub const UDP_PAD_BYTES: usize = 2;
/// The longest UDP payload that carries SDP.
pub const UDP_BYTES_MAX: usize = UDP_PAD_BYTES + HEADER_BYTES + BODY_BYTES_MAX;
/// The UDP port of a board for SDP.
pub const UDP_PORT: u16 = 17893;
/// As a tag: "give me a transient tag for the reply".
pub const TAG_TRANSIENT: u8 = 255;

/// What the first byte says; unknown bits are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// No reply wanted; also on SC&MP's replies.
    pub const NO_REPLY: Self = Self(0x07);
    /// A reply is wanted.
    pub const REPLY: Self = Self(0x87);
    /// Bit 7: a reply is wanted.
    pub const REPLY_BIT: u8 = 0x80;
    /// Bit 6: the message carries a check sum (between chips only).
    pub const CHECKSUM_BIT: u8 = 0x40;
    /// Bit 5: not to be routed; it is for the chip that the frame reached.
    pub const NO_ROUTE_BIT: u8 = 0x20;

    /// Whether the sender waits for a reply.
    pub const fn wants_reply(self) -> bool {
        self.0 & Self::REPLY_BIT != 0
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#04x})", self.0)
    }
}

/// The header as it lies in a message (SDP, section "Header (8 bytes)").
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// See [`Flags`].
    pub flags: u8,
    /// IP tag for the way out.
    pub tag: u8,
    /// See [`CorePort`].
    pub dest_port: u8,
    /// See [`CorePort`].
    pub srce_port: u8,
    /// See [`ChipAddress`].
    pub dest_addr: U16,
    /// See [`ChipAddress`].
    pub srce_addr: U16,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// One end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The chip.
    pub chip: ChipAddress,
    /// Its core and port.
    pub port: CorePort,
}

impl Endpoint {
    /// The host: behind the Ethernet of the chip that a message reaches first.
    pub const HOST: Self = Self { chip: ChipAddress(0), port: CorePort::ETHERNET };

    /// Port 0 (commands) of a core.
    pub const fn core(chip: ChipAddress, core: u8) -> Self {
        Self { chip, port: CorePort::new(core, 0) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.chip, self.port)
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Repr {
    /// Whether a reply is wanted, and more.
    pub flags: Flags,
    /// IP tag for the way out; [`TAG_TRANSIENT`] for one that is made for the reply.
    pub tag: u8,
    /// Where it goes.
    pub destination: Endpoint,
    /// Where it comes from.
    pub source: Endpoint,
}

impl Repr {
    /// A request from the host that wants a reply, as the official host sends it.
    pub const fn request(destination: Endpoint) -> Self {
        Self { flags: Flags::REPLY, tag: TAG_TRANSIENT, destination, source: Endpoint::HOST }
    }

    /// The header of the reply to this message: ends exchanged, no reply wanted.
    pub const fn reply(self) -> Self {
        Self {
            flags: Flags(self.flags.0 & !Flags::REPLY_BIT),
            destination: self.source,
            source: self.destination,
            ..self
        }
    }

    /// Reads a header.
    pub fn parse(header: &Header) -> Self {
        Self {
            flags: Flags(header.flags),
            tag: header.tag,
            destination: Endpoint { chip: ChipAddress(header.dest_addr.get()), port: CorePort(header.dest_port) },
            source: Endpoint { chip: ChipAddress(header.srce_addr.get()), port: CorePort(header.srce_port) },
        }
    }

    /// The header in its bytes.
    pub fn header(&self) -> Header {
        Header {
            flags: self.flags.0,
            tag: self.tag,
            dest_port: self.destination.port.0,
            srce_port: self.source.port.0,
            dest_addr: U16::new(self.destination.chip.0),
            srce_addr: U16::new(self.source.chip.0),
        }
    }

    /// Writes header and body as they go between chips (no pads) and returns the length.
    ///
    /// # Errors
    /// [`WireError::TooLong`] for a body that no message holds, [`WireError::BufferTooSmall`].
    pub fn emit(&self, body: &[u8], buffer: &mut [u8]) -> Result<usize> {
        check_body(body)?;
        let mut writer = Writer::new(buffer);
        writer.put_struct(&self.header())?;
        writer.put(body)?;
        Ok(writer.finish())
    }

    /// Writes a UDP payload: two pads of zero, header, body; returns its length.
    ///
    /// # Errors
    /// As [`Repr::emit`].
    pub fn emit_udp(&self, body: &[u8], buffer: &mut [u8]) -> Result<usize> {
        check_body(body)?;
        let mut writer = Writer::new(buffer);
        writer.put(&[0; UDP_PAD_BYTES])?;
        writer.put_struct(&self.header())?;
        writer.put(body)?;
        Ok(writer.finish())
    }
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sdp {} -> {} tag {} flags {:02x}", self.source, self.destination, self.tag, self.flags.0)
    }
}

fn check_body(body: &[u8]) -> Result<()> {
    if body.len() > BODY_BYTES_MAX {
        return Err(WireError::TooLong { what: "SDP body", limit_bytes: BODY_BYTES_MAX, got_bytes: body.len() });
    }
    Ok(())
}

/// A view of a message: header and body.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The header where it lies.
    pub header: &'a Header,
    /// All behind it.
    pub body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// A message that starts with its header.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below eight bytes, [`WireError::TooLong`] for a body that no message holds.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self> {
        let (header, body) = prefix::<Header>("SDP header", bytes)?;
        check_body(body)?;
        Ok(Self { header, body })
    }

    /// A message behind the two pads of a UDP payload; the pads' content is ignored.
    ///
    /// # Errors
    /// As [`Packet::new_checked`].
    pub fn from_udp(payload: &'a [u8]) -> Result<Self> {
        match payload.get(UDP_PAD_BYTES..) {
            Some(message) => Self::new_checked(message),
            None => Err(WireError::Truncated {
                what: "SDP in UDP",
                needed_bytes: UDP_PAD_BYTES + HEADER_BYTES,
                got_bytes: payload.len(),
            }),
        }
    }

    /// What the header says.
    pub fn repr(&self) -> Repr {
        Repr::parse(self.header)
    }
}

impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.repr(), Hex(self.body))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    // VER to (1, 1), as sent to a real monitor.
    const VERSION: [u8; 26] =
        [0, 0, 0x87, 0xFF, 0x00, 0xFF, 0x01, 0x01, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_captured_request_taken_apart_and_built() {
        let packet = Packet::from_udp(&VERSION).unwrap();
        let repr = packet.repr();
        assert_eq!(repr, Repr::request(Endpoint::core(ChipAddress::new(1, 1), 0)));
        assert!(repr.flags.wants_reply());
        assert_eq!(packet.body.len(), 16);
        assert_eq!(repr.to_string(), "sdp 0,0,eth -> 1,1,0 tag 255 flags 87");
        let mut buffer = [0xAA; 26];
        assert_eq!(repr.emit_udp(packet.body, &mut buffer), Ok(26));
        assert_eq!(buffer, VERSION);
        assert_eq!(repr.reply().destination, Endpoint::HOST);
        assert_eq!(repr.reply().flags, Flags::NO_REPLY);
    }

    #[test]
    fn what_is_too_short_or_long_is_an_error() {
        assert!(matches!(Packet::from_udp(&[0]), Err(WireError::Truncated { .. })));
        assert!(matches!(Packet::from_udp(&VERSION[..9]), Err(WireError::Truncated { needed_bytes: 8, .. })));
        assert!(matches!(Packet::new_checked(&[0; 281]), Err(WireError::TooLong { .. })));
        let repr = Repr::request(Endpoint::HOST);
        assert!(matches!(repr.emit(&[0; 273], &mut [0; 400]), Err(WireError::TooLong { .. })));
        assert!(matches!(repr.emit(&[0; 4], &mut [0; 11]), Err(WireError::BufferTooSmall { needed_bytes: 12, .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_survive_a_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(packet) = Packet::new_checked(&bytes) {
                let mut buffer = [0; 300];
                let length = packet.repr().emit(packet.body, &mut buffer).unwrap();
                prop_assert_eq!(&buffer[..length], &bytes[..]);
                prop_assert!(!packet.to_string().contains('\n'));
            }
        }
    }
}
