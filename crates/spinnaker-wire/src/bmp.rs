//! Board management processors: SCP on their own Ethernet port, with commands of their own.
//!
//! In a request the core of the destination is the board in the frame; replies and framing are those of [`crate::scp`].

use core::fmt;

use zerocopy::little_endian::{I16, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{Hex, Writer, prefix, range};
use crate::scp::{self, CommandCode};
use crate::sdp::Endpoint;
use crate::{ChipAddress, CorePort, Result, Unit, WireError};

/// The UDP port of a BMP.
pub const UDP_PORT: u16 = 17893;
/// Boards that a frame has at most.
pub const BOARDS_MAX: u8 = 24;

/// Port 0 of a board of the frame.
pub const fn board(number: u8) -> Endpoint {
    Endpoint { chip: ChipAddress(0), port: CorePort::new(number, 0) }
}

crate::bytes::raw_enum! {
    /// What BMP_INFO tells.
    pub enum InfoKind(u32) {
        /// Hardware version, serial number, addresses.
        Basic = 0 "basic",
        /// Copy of the EEPROM.
        Eeprom = 1 "EEPROM",
        /// State of the CAN bus.
        Can = 2 "CAN",
        /// Voltages, temperatures, fans: [`BoardStatus`].
        Board = 3 "board",
        /// IP data of the BMP and of the board: [`IpInfo`] twice.
        Ip = 4 "IP",
        /// Uninitialised vector.
        Vector = 5 "vector",
    }
}

crate::bytes::raw_enum! {
    /// Bits 1:0 of RESET's first argument.
    pub enum ResetAction(u8) {
        /// Let go.
        Release = 0 "release",
        /// Hold in reset.
        Hold = 1 "hold",
        /// Both, one after the other.
        Pulse = 2 "pulse",
    }
}

crate::bytes::raw_enum! {
    /// The third argument of the serial flash and the EEPROM.
    pub enum FlashAction(u32) {
        /// Read.
        Read = 0 "read",
        /// Write.
        Write = 1 "write",
        /// CRC-32 (serial flash).
        Crc = 2 "crc",
    }
}

crate::bytes::raw_enum! {
    /// The first argument of XILINX.
    pub enum XilinxAction(u32) {
        /// Load the bit file.
        Load = 0 "load",
        /// Initialise.
        Init = 1 "init",
        /// Reset.
        Reset = 2 "reset",
    }
}

/// A request to a BMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Returned with the reply.
    pub seq: u16,
    /// What is wanted.
    pub command: Command<'a>,
}

/// What a request asks for. Replies are empty unless said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Who answers there. Reply: [`scp::Version`], with board, CAN id and frame in place of core and chip.
    Version,
    /// Read the BMP's memory. Reply: the bytes.
    Read {
        /// Where.
        address: u32,
        /// How much.
        length_bytes: u32,
        /// By what accesses.
        unit: Unit,
    },
    /// Write the BMP's memory.
    Write {
        /// Where.
        address: u32,
        /// By what accesses.
        unit: Unit,
        /// What.
        data: &'a [u8],
    },
    /// Fill the BMP's memory.
    Fill {
        /// Where.
        address: u32,
        /// With what.
        word: u32,
        /// How much.
        length_bytes: u32,
    },
    /// Read registers of an FPGA. Reply: the bytes.
    FpgaRead {
        /// Where; a multiple of 4.
        address: u32,
        /// How much; at most 256.
        length_bytes: u32,
        /// 0..=2.
        fpga: u32,
    },
    /// Write registers of an FPGA.
    FpgaWrite {
        /// Where; a multiple of 4.
        address: u32,
        /// 0..=2.
        fpga: u32,
        /// What.
        data: &'a [u8],
    },
    /// Switch LEDs; two bits each, see [`scp::LedAction`].
    Led {
        /// The bits.
        actions: u32,
        /// Bit n for board n.
        boards: u32,
    },
    /// Facts. Reply: by kind.
    Info(InfoKind),
    /// Serial flash. Reply: the bytes read, or the CRC.
    SerialFlash {
        /// Where.
        address: u32,
        /// How much.
        length_bytes: u32,
        /// What to do.
        action: FlashAction,
        /// What to write.
        data: &'a [u8],
    },
    /// EEPROM. Reply: the bytes read.
    Eeprom {
        /// Where.
        address: u32,
        /// How much.
        length_bytes: u32,
        /// What to do.
        action: FlashAction,
        /// What to write.
        data: &'a [u8],
    },
    /// Reset boards.
    Reset {
        /// What to do; two bits.
        action: ResetAction,
        /// The FPGAs, too.
        fpgas: bool,
        /// Milliseconds from board to board.
        delay_ms: u16,
        /// Bit n for board n.
        boards: u32,
    },
    /// FPGAs.
    Xilinx(XilinxAction),
    /// Switch boards on or off; the answer comes when it is done.
    Power {
        /// On or off.
        on: bool,
        /// Milliseconds from board to board.
        delay_ms: u16,
        /// Bit n for board n.
        boards: u32,
    },
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

impl<'a> Request<'a> {
    /// Reads the body of an SDP message to a BMP.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 16 bytes or where data are missing, [`WireError::Field`] for arguments that the
    /// command does not have.
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let packet = scp::Packet::new_checked(body)?;
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
    /// [`WireError::TooLong`] for more than 256 bytes of data, [`WireError::BufferTooSmall`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        let data = self.command.data();
        if data.len() > scp::DATA_BYTES_MAX {
            let limit_bytes = scp::DATA_BYTES_MAX;
            return Err(WireError::TooLong { what: "BMP data", limit_bytes, got_bytes: data.len() });
        }
        let [arg1, arg2, arg3] = self.command.arguments().map(U32::new);
        let mut writer = Writer::new(buffer);
        writer.put_struct(&scp::Header { cmd_rc: U16::new(self.command.code().raw()), seq: U16::new(self.seq) })?;
        writer.put_struct(&scp::Arguments { arg1, arg2, arg3 })?;
        writer.put(data)?;
        Ok(writer.finish())
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bmp seq {} {}", self.seq, self.command)
    }
}

impl<'a> Command<'a> {
    fn parse(code: CommandCode, args: [u32; 3], data: &'a [u8]) -> Result<Self> {
        let [arg1, arg2, arg3] = args;
        let written = |what, action: FlashAction| match action {
            FlashAction::Write => range(what, data, 0, arg2 as usize),
            _ => Ok(&data[..0]),
        };
        Ok(match code {
            CommandCode::Version => Self::Version,
            CommandCode::Read => Self::Read { address: arg1, length_bytes: arg2, unit: Unit::from_raw(arg3) },
            CommandCode::Write => {
                let data = range("WRITE data", data, 0, arg2 as usize)?;
                Self::Write { address: arg1, unit: Unit::from_raw(arg3), data }
            }
            CommandCode::Fill => Self::Fill { address: arg1, word: arg2, length_bytes: arg3 },
            CommandCode::LinkRead => Self::FpgaRead { address: arg1, length_bytes: arg2, fpga: arg3 },
            CommandCode::LinkWrite => {
                let data = range("FPGA_WRITE data", data, 0, arg2 as usize)?;
                Self::FpgaWrite { address: arg1, fpga: arg3, data }
            }
            CommandCode::Led => Self::Led { actions: arg1, boards: arg2 },
            CommandCode::BmpInfo => Self::Info(InfoKind::from_raw(arg1)),
            CommandCode::BmpSerialFlash => {
                let action = FlashAction::from_raw(arg3);
                let data = written("BMP_SF data", action)?;
                Self::SerialFlash { address: arg1, length_bytes: arg2, action, data }
            }
            CommandCode::BmpEeprom => {
                let action = FlashAction::from_raw(arg3);
                let data = written("BMP_EE data", action)?;
                Self::Eeprom { address: arg1, length_bytes: arg2, action, data }
            }
            CommandCode::BmpReset => Self::Reset {
                action: ResetAction::from_raw((arg1 & 3) as u8),
                fpgas: arg1 & 4 != 0,
                delay_ms: (arg1 >> 16) as u16,
                boards: arg2,
            },
            CommandCode::BmpXilinx => Self::Xilinx(XilinxAction::from_raw(arg1)),
            CommandCode::BmpPower => match arg1 & 0xFF {
                on @ (0 | 1) => Self::Power { on: on == 1, delay_ms: (arg1 >> 16) as u16, boards: arg2 },
                value => return Err(WireError::Field { what: "POWER state", value }),
            },
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
            Self::FpgaRead { .. } => CommandCode::LinkRead,
            Self::FpgaWrite { .. } => CommandCode::LinkWrite,
            Self::Led { .. } => CommandCode::Led,
            Self::Info(_) => CommandCode::BmpInfo,
            Self::SerialFlash { .. } => CommandCode::BmpSerialFlash,
            Self::Eeprom { .. } => CommandCode::BmpEeprom,
            Self::Reset { .. } => CommandCode::BmpReset,
            Self::Xilinx(_) => CommandCode::BmpXilinx,
            Self::Power { .. } => CommandCode::BmpPower,
            Self::Other { code, .. } => *code,
        }
    }

    /// Its argument words; of small fields the bits that fit.
    pub const fn arguments(&self) -> [u32; 3] {
        match *self {
            Self::Version => [0; 3],
            Self::Read { address, length_bytes, unit } => [address, length_bytes, unit.raw()],
            Self::Write { address, unit, data } => [address, data.len() as u32, unit.raw()],
            Self::Fill { address, word, length_bytes } => [address, word, length_bytes],
            Self::FpgaRead { address, length_bytes, fpga } => [address, length_bytes, fpga],
            Self::FpgaWrite { address, fpga, data } => [address, data.len() as u32, fpga],
            Self::Led { actions, boards } => [actions, boards, 0],
            Self::Info(kind) => [kind.raw(), 0, 0],
            Self::SerialFlash { address, length_bytes, action, .. }
            | Self::Eeprom { address, length_bytes, action, .. } => [address, length_bytes, action.raw()],
            Self::Reset { action, fpgas, delay_ms, boards } => {
                [action.raw() as u32 & 3 | (fpgas as u32) << 2 | (delay_ms as u32) << 16, boards, 0]
            }
            Self::Xilinx(action) => [action.raw(), 0, 0],
            Self::Power { on, delay_ms, boards } => [on as u32 | (delay_ms as u32) << 16, boards, 0],
            Self::Other { args, .. } => args,
        }
    }

    /// The data behind its arguments.
    pub const fn data(&self) -> &'a [u8] {
        match self {
            Self::Write { data, .. }
            | Self::FpgaWrite { data, .. }
            | Self::SerialFlash { data, .. }
            | Self::Eeprom { data, .. }
            | Self::Other { data, .. } => data,
            _ => &[],
        }
    }
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FpgaRead { .. } => f.write_str("FPGA_READ")?,
            Self::FpgaWrite { .. } => f.write_str("FPGA_WRITE")?,
            _ => write!(f, "{}", self.code())?,
        }
        match self {
            Self::Version => Ok(()),
            Self::Read { address, length_bytes, unit } => write!(f, " {address:#x}+{length_bytes} {unit}"),
            Self::Write { address, unit, data } => write!(f, " {address:#x} {unit} {}", Hex(data)),
            Self::Fill { address, word, length_bytes } => write!(f, " {address:#x}+{length_bytes} {word:#x}"),
            Self::FpgaRead { address, length_bytes, fpga } => write!(f, " {fpga} {address:#x}+{length_bytes}"),
            Self::FpgaWrite { address, fpga, data } => write!(f, " {fpga} {address:#x} {}", Hex(data)),
            Self::Led { actions, boards } => write!(f, " {actions:#x} boards {boards:#x}"),
            Self::Info(kind) => write!(f, " {kind}"),
            Self::SerialFlash { address, length_bytes, action, .. }
            | Self::Eeprom { address, length_bytes, action, .. } => {
                write!(f, " {action} {address:#x}+{length_bytes}")
            }
            Self::Reset { action, boards, .. } => write!(f, " {action} boards {boards:#x}"),
            Self::Xilinx(action) => write!(f, " {action}"),
            Self::Power { on, boards, .. } => write!(f, " {} boards {boards:#x}", if *on { "on" } else { "off" }),
            Self::Other { args: [a, b, c], data, .. } => write!(f, " {a:#x} {b:#x} {c:#x} {}", Hex(data)),
        }
    }
}

/// Voltages, temperatures and fans of a board (BMP_INFO 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BoardStatus {
    /// Raw converter values.
    pub adc: [U16; 8],
    /// Top, bottom, two unused; 1/256 degree Celsius.
    pub temperature_internal: [I16; 4],
    /// External sensors; -0x8000 for none.
    pub temperature_external: [I16; 4],
    /// Fans; -1 for none.
    pub fans: [I16; 4],
    /// Warnings.
    pub warning: U32,
    /// Why it was switched off.
    pub shutdown: U32,
}

const _: () = assert!(size_of::<BoardStatus>() == 48);

impl BoardStatus {
    /// An external temperature of a sensor that is not there.
    pub const TEMPERATURE_ABSENT: i16 = -0x8000;
    /// A fan that is not there.
    pub const FAN_ABSENT: i16 = -1;

    /// Reads the payload of a reply.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn read(payload: &[u8]) -> Result<&Self> {
        Ok(prefix("BMP board status", payload)?.0)
    }

    /// The three 1.2 V rails, 1.8 V, 3.3 V and 12 V in millivolts.
    pub fn rails_mv(&self) -> [u32; 6] {
        let scaled = |index: usize, full_scale_mv: u32| {
            self.adc.get(index).map_or(0, |raw| u32::from(raw.get()) * full_scale_mv / 4096)
        };
        [scaled(3, 2500), scaled(2, 2500), scaled(1, 2500), scaled(4, 2500), scaled(6, 3750), scaled(7, 15000)]
    }
}

impl fmt::Display for BoardStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.rails_mv();
        write!(f, "rails {a} {b} {c} {d} {e} {g} mV, {} degrees", self.temperature_internal[0].get() / 256)
    }
}

/// IP data (half of BMP_INFO 4's reply), in the form of the serial ROM: big-endian port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IpInfo {
    /// Flags.
    pub flags: U16,
    /// MAC address.
    pub mac: [u8; 6],
    /// IP address, first octet first.
    pub ip: [u8; 4],
    /// Gateway.
    pub gateway: [u8; 4],
    /// Net mask.
    pub net_mask: [u8; 4],
    /// UDP port.
    pub udp_port: U16,
    /// Unused.
    pub pad: [u8; 10],
}

const _: () = assert!(size_of::<IpInfo>() == 32);

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn power_as_the_official_host_sends_it() {
        // Boards 0 and 2 on, no delay, sequence 5: SDP to board 0, then the request.
        let command = Command::Power { on: true, delay_ms: 0, boards: 0b101 };
        let mut body = [0; 16];
        assert_eq!(Request { seq: 5, command }.emit(&mut body), Ok(16));
        assert_eq!(body, [57, 0, 5, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        let request = Request::parse(&body).unwrap();
        assert_eq!(request.to_string(), "bmp seq 5 BMP_POWER on boards 0x5");
        assert_eq!(board(3).port.0, 3);
        body[4] = 2;
        assert!(Request::parse(&body).is_err());
    }

    #[test]
    fn codes_mean_something_else_here() {
        let mut body = [17, 0, 0, 0, 0x5C, 0, 1, 0, 4, 0, 0, 0, 2, 0, 0, 0];
        let read = Command::FpgaRead { address: 0x1_005C, length_bytes: 4, fpga: 2 };
        assert_eq!(Request::parse(&body).unwrap().command, read);
        body[0] = 18;
        assert!(matches!(Request::parse(&body), Err(WireError::Truncated { .. })));
    }

    #[test]
    fn rails_in_millivolts() {
        let mut bytes = [0; 48];
        bytes[2..4].copy_from_slice(&1966u16.to_le_bytes());
        bytes[14..16].copy_from_slice(&3277u16.to_le_bytes());
        bytes[16..18].copy_from_slice(&(40 * 256i16).to_le_bytes());
        let status = BoardStatus::read(&bytes).unwrap();
        let [_, _, core, _, _, supply] = status.rails_mv();
        assert!((1199..=1201).contains(&core) && (11990..=12010).contains(&supply));
        assert!(status.to_string().ends_with("40 degrees"));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(
            code in prop_oneof![0u16..64, any::<u16>()],
            seq in any::<u16>(),
            args in any::<[u32; 3]>(),
            small in proptest::collection::vec(0u32..300, 3),
            data in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            for args in [args, [args[0], small[1], args[2]], [small[0], small[1], small[2]]] {
                let mut body = Vec::new();
                body.extend(code.to_le_bytes());
                body.extend(seq.to_le_bytes());
                body.extend(args.iter().flat_map(|a| a.to_le_bytes()));
                body.extend(&data);
                let Ok(request) = Request::parse(&body) else { continue };
                prop_assert!(!request.to_string().contains('\n'));
                let mut buffer = [0; 400];
                if let Ok(length) = request.emit(&mut buffer) {
                    prop_assert_eq!(length, request.buffer_len());
                    prop_assert_eq!(Request::parse(&buffer[..length]), Ok(request));
                } else {
                    prop_assert!(request.command.data().len() > 256);
                }
            }
        }
    }
}
