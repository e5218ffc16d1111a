//! SCP: commands and replies in the body of SDP messages.
//!
//! [`Packet`] is the view of either (code, sequence number, rest); [`Request`] with its [`Command`] is what a request
//! means; a reply's payload is read by the type named in the command's documentation.

mod code;
mod command;
mod memory;
mod reply;
mod start;

use core::fmt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use code::{CommandCode, ReturnCode};
pub use command::{Command, FloodBlock, LedAction, NnpControl, Request, SerialRomAccess};
pub use memory::{AllocCommand, RouterCommand};
pub use reply::{ChipInfo, ChipInfoPayload, SdramSpace, Version, VersionPayload, word_reply};
pub use start::{Signal, SignalTransport, SignalWord, StartWord};

use crate::bytes::{Hex, Writer, prefix};
use crate::sdp;
use crate::{Result, WireError};

/// The most data behind the arguments of a request, or in the payload of READ's reply.
pub const DATA_BYTES_MAX: usize = 256;
/// Bytes of code and sequence number.
pub const HEADER_BYTES: usize = 4;
/// Bytes of the three argument words.
pub const ARGUMENT_BYTES: usize = 12;

/// Code and sequence number, in front of arguments or payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Command code; in a reply the return code.
    pub cmd_rc: U16,
    /// Sequence number; returned as it was.
    pub seq: U16,
}

/// The three argument words of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Arguments {
    /// arg1
    pub arg1: U32,
    /// arg2
    pub arg2: U32,
    /// arg3
    pub arg3: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES && size_of::<Arguments>() == ARGUMENT_BYTES);

/// A view of an SDP body as a request or a reply.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Code and sequence number.
    pub header: &'a Header,
    /// In a reply the payload; in a request arguments and data.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The body of an SDP message.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below four bytes.
    pub fn new_checked(body: &'a [u8]) -> Result<Self> {
        let (header, payload) = prefix::<Header>("SCP header", body)?;
        Ok(Self { header, payload })
    }

    /// The code as a command.
    pub fn command_code(&self) -> CommandCode {
        CommandCode::from_raw(self.header.cmd_rc.get())
    }

    /// The code as a return code.
    pub fn return_code(&self) -> ReturnCode {
        ReturnCode::from_raw(self.header.cmd_rc.get())
    }

    /// The sequence number.
    pub fn seq(&self) -> u16 {
        self.header.seq.get()
    }

    /// The arguments of a request and the data behind them.
    ///
    /// # Errors
    /// [`WireError::Truncated`] where a request is cut short.
    pub fn arguments(&self) -> Result<(&'a Arguments, &'a [u8])> {
        prefix::<Arguments>("SCP arguments", self.payload)
    }
}

impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.header.cmd_rc.get();
        if ReturnCode::ALL.iter().any(|c| c.raw() == code) {
            write!(f, "scp reply {}", ReturnCode::from_raw(code))?;
        } else {
            write!(f, "scp {}", CommandCode::from_raw(code))?;
        }
        write!(f, " seq {}: {}", self.seq(), Hex(self.payload))
    }
}

/// Writes the body of a reply and returns its length.
///
/// # Errors
/// [`WireError::BufferTooSmall`].
pub fn emit_reply(code: ReturnCode, seq: u16, payload: &[u8], buffer: &mut [u8]) -> Result<usize> {
    let mut writer = Writer::new(buffer);
    writer.put_struct(&Header { cmd_rc: U16::new(code.raw()), seq: U16::new(seq) })?;
    writer.put(payload)?;
    Ok(writer.finish())
}

/// Writes a UDP payload that carries a request and returns its length.
///
/// # Errors
/// [`WireError::BufferTooSmall`], and those of [`Request::emit`].
pub fn emit_udp_request(header: &sdp::Repr, request: &Request<'_>, buffer: &mut [u8]) -> Result<usize> {
    let mut body = [0; sdp::BODY_BYTES_MAX];
    let length_bytes = request.emit(&mut body)?;
    header.emit_udp(&body[..length_bytes], buffer)
}

/// Writes a UDP payload that carries a reply and returns its length.
///
/// # Errors
/// [`WireError::TooLong`] for a payload that no message holds, [`WireError::BufferTooSmall`].
pub fn emit_udp_reply(
    header: &sdp::Repr,
    code: ReturnCode,
    seq: u16,
    payload: &[u8],
    buffer: &mut [u8],
) -> Result<usize> {
    let mut body = [0; sdp::BODY_BYTES_MAX];
    let limit_bytes = sdp::BODY_BYTES_MAX - HEADER_BYTES;
    if payload.len() > limit_bytes {
        return Err(WireError::TooLong { what: "SCP reply", limit_bytes, got_bytes: payload.len() });
    }
    let length_bytes = emit_reply(code, seq, payload, &mut body)?;
    header.emit_udp(&body[..length_bytes], buffer)
}

/// Text that a core sends out through Ethernet (TUBE): it follows the sequence number at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tube<'a> {
    /// The text as sent, without a terminator.
    pub text: &'a [u8],
}

impl<'a> Tube<'a> {
    /// Reads the body of an SDP message.
    ///
    /// # Errors
    /// [`WireError::Truncated`]; [`WireError::Field`] if it is no such message.
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let packet = Packet::new_checked(body)?;
        match packet.command_code() {
            CommandCode::Tube => Ok(Self { text: packet.payload }),
            other => Err(WireError::Field { what: "TUBE command", value: other.raw().into() }),
        }
    }

    /// Writes the body (sequence number 0) and returns its length.
    ///
    /// # Errors
    /// [`WireError::BufferTooSmall`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        let mut writer = Writer::new(buffer);
        writer.put_struct(&Header { cmd_rc: U16::new(CommandCode::Tube.raw()), seq: U16::new(0) })?;
        writer.put(self.text)?;
        Ok(writer.finish())
    }
}

impl fmt::Display for Tube<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text {:?}", crate::bytes::valid_utf8(self.text))
    }
}

#[cfg(test)]
mod tests;
