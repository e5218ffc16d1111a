//! The management processor of a virtual machine: one for all its boards, as in a frame.

use std::collections::BTreeMap;

use spinnaker_wire::bmp::{BoardStatus, Command, InfoKind, Request, ResetAction};
use spinnaker_wire::scp::{self, ReturnCode, Version};
use spinnaker_wire::{ChipAddress, sdp};
use zerocopy::little_endian::{I16, U16, U32};
use zerocopy::{FromZeros, IntoBytes};

/// Registers of FPGAs that are kept.
const REGISTERS_MAX: usize = 4096;

/// Answers version, power, reset, LEDs, board status and FPGA registers (which keep what is written). All else is an unknown
/// command.
#[derive(Debug, Clone)]
pub struct Bmp {
    on: Vec<bool>,
    fpga: BTreeMap<(u8, u32, u32), u32>,
}

/// What a request leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BmpAnswer {
    /// The datagram back.
    pub reply: Option<Vec<u8>>,
    /// Boards to be switched.
    pub power: Option<Vec<Option<bool>>>,
    /// What happened, for a log.
    pub log: Option<String>,
}

impl Bmp {
    /// The processor of so many boards, all on.
    pub fn new(boards: usize) -> Self {
        Self { on: vec![true; boards], fpga: BTreeMap::new() }
    }

    /// Answers a datagram. What is no request is ignored.
    pub fn answer(&mut self, datagram: &[u8]) -> BmpAnswer {
        let mut answer = BmpAnswer::default();
        let Ok(packet) = sdp::Packet::from_udp(datagram) else { return answer };
        let header = packet.repr();
        let Ok(scp) = scp::Packet::new_checked(packet.body) else { return answer };
        let board = header.destination.port.core();
        let mut payload = Vec::new();
        let code = if usize::from(board) >= self.on.len() {
            ReturnCode::BadCore
        } else if header.destination.port.port() != 0 {
            ReturnCode::BadPort
        } else {
            match Request::parse(packet.body) {
                Ok(request) => self.execute(board, &request.command, &mut payload, &mut answer),
                Err(spinnaker_wire::WireError::Truncated { .. }) => ReturnCode::BadLength,
                Err(_) => ReturnCode::BadArgument,
            }
        };
        if header.flags.wants_reply() {
            let mut buffer = [0; sdp::UDP_BYTES_MAX];
            let length = scp::emit_udp_reply(&header.reply(), code, scp.seq(), &payload, &mut buffer);
            answer.reply = length.ok().map(|length| buffer[..length].to_vec());
        }
        answer
    }

    fn execute(&mut self, board: u8, command: &Command<'_>, out: &mut Vec<u8>, answer: &mut BmpAnswer) -> ReturnCode {
        match *command {
            Command::Version => {
                *out = version(board);
                ReturnCode::Ok
            }
            Command::Power { on, boards, .. } => {
                self.switch(boards, on, answer);
                ReturnCode::Ok
            }
            Command::Reset { action: ResetAction::Pulse | ResetAction::Release, boards, .. } => {
                let running = (0..32).filter(|n| self.on.get(*n) == Some(&true)).fold(0, |mask, n| mask | 1 << n);
                self.switch(boards & running, true, answer);
                ReturnCode::Ok
            }
            Command::Led { .. } => ReturnCode::Ok,
            Command::Info(InfoKind::Board) => {
                out.extend_from_slice(status(self.on[usize::from(board)]).as_bytes());
                ReturnCode::Ok
            }
            Command::FpgaRead { address, length_bytes, fpga } if length_bytes <= 256 && fpga < 3 => {
                for word in 0..length_bytes.div_ceil(4) {
                    let value = self.fpga.get(&(board, fpga, address.wrapping_add(4 * word) & !3));
                    out.extend_from_slice(&value.copied().unwrap_or(0).to_le_bytes());
                }
                out.truncate(length_bytes as usize);
                ReturnCode::Ok
            }
            Command::FpgaWrite { address, fpga, data } if fpga < 3 && data.len().is_multiple_of(4) => {
                for (word, bytes) in (0..).zip(data.chunks_exact(4)) {
                    let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
                    let register = (board, fpga, address.wrapping_add(4 * word) & !3);
                    if self.fpga.len() < REGISTERS_MAX || self.fpga.contains_key(&register) {
                        self.fpga.insert(register, value);
                    }
                }
                ReturnCode::Ok
            }
            Command::FpgaRead { .. } | Command::FpgaWrite { .. } => ReturnCode::BadArgument,
            _ => ReturnCode::BadCommand,
        }
    }

    fn switch(&mut self, boards: u32, on: bool, answer: &mut BmpAnswer) {
        let named = |n: usize| n < 32 && boards & 1 << n != 0;
        if !(0..self.on.len()).any(named) {
            return;
        }
        let change: Vec<_> = (0..self.on.len()).map(|n| named(n).then_some(on)).collect();
        for (state, change) in self.on.iter_mut().zip(&change) {
            *state = change.unwrap_or(*state);
        }
        let names: Vec<String> = (0..self.on.len()).filter(|n| named(*n)).map(|n| n.to_string()).collect();
        answer.log = Some(format!("BMP: power {} of board {}", if on { "on" } else { "off" }, names.join(", ")));
        answer.power = Some(change);
    }
}

fn version(board: u8) -> Vec<u8> {
    let version = Version {
        virtual_core: board,
        physical_core: board,
        chip: ChipAddress(0),
        buffer_bytes: 256,
        build_time_s: 0,
        name: "BC&MP",
        hardware: "Spin5-BMP",
        number: (2, 1, 2),
    };
    let mut payload = vec![0; 64];
    let length = version.emit(&mut payload).unwrap_or(0);
    payload.truncate(length);
    payload
}

/// Values of a healthy board without fans: rails right, 30 degrees.
fn status(on: bool) -> BoardStatus {
    let mut status = BoardStatus::new_zeroed();
    // 1.2 V three times, 1.8 V, 3.3 V, 12 V; only the last two while it is off.
    for (index, raw, always) in
        [(1, 1966, false), (2, 1966, false), (3, 1966, false), (4, 2949, false), (6, 3604, true), (7, 3277, true)]
    {
        status.adc[index] = U16::new(if on || always { raw } else { 0 });
    }
    status.temperature_internal = [30 * 256, 30 * 256, 0, 0].map(I16::new);
    status.temperature_external = [BoardStatus::TEMPERATURE_ABSENT; 4].map(I16::new);
    status.fans = [BoardStatus::FAN_ABSENT; 4].map(I16::new);
    status.shutdown = U32::ZERO;
    status
}

#[cfg(test)]
mod tests {
    use spinnaker_wire::bmp::{self, BoardStatus, FlashAction};

    use super::*;

    fn ask(bmp: &mut Bmp, board: u8, command: Command<'_>) -> (ReturnCode, Vec<u8>, BmpAnswer) {
        let mut body = [0; 300];
        let length = Request { seq: 9, command }.emit(&mut body).unwrap();
        let mut datagram = [0; 320];
        let length = sdp::Repr::request(bmp::board(board)).emit_udp(&body[..length], &mut datagram).unwrap();
        let answer = bmp.answer(&datagram[..length]);
        let reply = answer.reply.clone().expect("a reply");
        let packet = sdp::Packet::from_udp(&reply).unwrap();
        assert_eq!(packet.repr().source.port.core(), board);
        let scp = scp::Packet::new_checked(packet.body).unwrap();
        assert_eq!(scp.seq(), 9);
        (scp.return_code(), scp.payload.to_vec(), answer)
    }

    #[test]
    fn it_says_who_it_is() {
        let (code, payload, _) = ask(&mut Bmp::new(3), 2, Command::Version);
        let version = Version::parse(&payload).unwrap();
        assert_eq!((code, version.virtual_core, version.name), (ReturnCode::Ok, 2, "BC&MP"));
        assert_eq!((version.hardware, version.number), ("Spin5-BMP", (2, 1, 2)));
        assert_eq!(ask(&mut Bmp::new(3), 3, Command::Version).0, ReturnCode::BadCore);
    }

    #[test]
    fn power_names_the_boards() {
        let mut bmp = Bmp::new(3);
        let (code, _, answer) = ask(&mut bmp, 0, Command::Power { on: false, delay_ms: 0, boards: 0b101 });
        assert_eq!(code, ReturnCode::Ok);
        assert_eq!(answer.power, Some(vec![Some(false), None, Some(false)]));
        assert_eq!(answer.log.as_deref(), Some("BMP: power off of board 0, 2"));
        // A reset does not switch on what is off.
        let reset = Command::Reset { action: ResetAction::Pulse, fpgas: false, delay_ms: 0, boards: 0b111 };
        assert_eq!(ask(&mut bmp, 0, reset).2.power, Some(vec![None, Some(true), None]));
        assert_eq!(ask(&mut bmp, 0, Command::Power { on: true, delay_ms: 0, boards: 0xF0 }).2.power, None);
        let (_, payload, _) = ask(&mut bmp, 0, Command::Info(InfoKind::Board));
        assert_eq!(BoardStatus::read(&payload).unwrap().rails_mv()[0], 0);
        let (_, payload, _) = ask(&mut bmp, 1, Command::Info(InfoKind::Board));
        assert_eq!(BoardStatus::read(&payload).unwrap().rails_mv()[0], 1199);
    }

    #[test]
    fn registers_of_fpgas_keep_what_is_written() {
        let mut bmp = Bmp::new(1);
        let write = Command::FpgaWrite { address: 0x1_005C, fpga: 2, data: &[1, 0, 0, 0, 7, 0, 0, 0] };
        assert_eq!(ask(&mut bmp, 0, write).0, ReturnCode::Ok);
        let read = |fpga| Command::FpgaRead { address: 0x1_005C, length_bytes: 8, fpga };
        assert_eq!(ask(&mut bmp, 0, read(2)).1, [1, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(ask(&mut bmp, 0, read(0)).1, [0; 8]);
        assert_eq!(ask(&mut bmp, 0, read(3)).0, ReturnCode::BadArgument);
    }

    #[test]
    fn what_it_does_not_know_it_says() {
        let mut bmp = Bmp::new(1);
        let eeprom = Command::Eeprom { address: 0, length_bytes: 4, action: FlashAction::Read, data: &[] };
        assert_eq!(ask(&mut bmp, 0, eeprom).0, ReturnCode::BadCommand);
        for junk in [&[][..], &[0; 9], &[0; 13], &[0xFF; 12]] {
            let _ = bmp.answer(junk);
        }
        // A request that is cut short, but tells its sequence number.
        let answer = bmp.answer(&[0, 0, 0x87, 255, 0, 255, 0, 0, 0, 0, 0, 0, 5, 0]);
        assert_eq!(answer.reply.unwrap()[10], 0x81);
    }
}
