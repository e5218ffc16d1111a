//! The world outside of the boards: Ethernet frames at 100 Mbit/s, and UDP datagrams in them.
//!
//! Behind each board's cable there is a host at every IP address that is asked for: it answers ARP, and datagrams to
//! it come out of the machine.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

use spinnaker_machine::ChipXy;

pub use crate::bootrom::BOOT_PORT;
use crate::bootrom::internet_sum;
use crate::chip::{BoardAddress, wire_ps};

/// Bytes of a datagram that fit a frame.
const DATAGRAM_BYTES_MAX: usize = 1472;
/// Frames and datagrams kept for a caller who does not take them.
const KEPT_MAX: usize = 1 << 16;
/// What is on its way to a board at most, as time on the cable: beyond that frames are lost, as in a switch.
const QUEUE_PS: u64 = 1_000_000_000_000;

/// A UDP datagram between a host and a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Ethernet chip of the board.
    pub board: ChipXy,
    /// The host's address and port.
    pub host: SocketAddrV4,
    /// The board's port.
    pub port: u16,
    /// Machine time at which its last bit was out, ns (for datagrams to the board: not used).
    pub time_ns: u64,
    /// What it carries.
    pub data: Vec<u8>,
}

struct Board {
    address: BoardAddress,
    /// When the cable to the board is free.
    free_ps: u64,
    identification: u16,
}

/// The hosts' side of all boards' cables.
pub(super) struct HostSide {
    boards: BTreeMap<u32, Board>,
    /// Frames in 65,536 that are lost, the seed of which, and frames so far.
    losses: u16,
    seed: u64,
    frames: u64,
    /// Datagrams that came out, by the time at which they are out, ps.
    received: VecDeque<(u64, Datagram)>,
    /// Other frames, in the same way, with the chip.
    other: VecDeque<(u64, (u32, Vec<u8>))>,
}

/// Adds something that comes out at a time to a queue in order of time. Boards are simulated apart, so it may not be the last.
fn keep<T>(queue: &mut VecDeque<(u64, T)>, time_ps: u64, item: T) {
    if queue.len() < KEPT_MAX {
        let later = queue.iter().rev().take_while(|(other_ps, _)| *other_ps > time_ps).count();
        queue.insert(queue.len() - later, (time_ps, item));
    }
}

/// Ethernet address of the host at an IP address: locally administered.
fn host_mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x00, a, b, c, d]
}

impl HostSide {
    pub fn new(boards: BTreeMap<u32, BoardAddress>, losses: u16, seed: u64) -> Self {
        let board = |address| Board { address, free_ps: 0, identification: 0 };
        let boards = boards.into_iter().map(|(chip, address)| (chip, board(address))).collect();
        Self { boards, losses, seed, frames: 0, received: VecDeque::new(), other: VecDeque::new() }
    }

    pub fn boards(&self) -> impl Iterator<Item = (u32, BoardAddress)> + '_ {
        self.boards.iter().map(|(&chip, board)| (chip, board.address))
    }

    /// Whether the next frame is lost on its way.
    pub fn loses(&mut self) -> bool {
        self.frames += 1;
        self.losses > 0 && super::drawn(self.seed, self.frames) & 0xFFFF < u64::from(self.losses)
    }

    /// Puts a frame on the cable to a board: when it is there. `None`: no such board, or too many are on their way.
    pub fn wire(&mut self, chip: u32, frame_bytes: usize, now_ps: u64) -> Option<u64> {
        let board = self.boards.get_mut(&chip)?;
        if board.free_ps > now_ps.saturating_add(QUEUE_PS) {
            return None;
        }
        board.free_ps = board.free_ps.max(now_ps) + wire_ps(frame_bytes.max(60));
        Some(board.free_ps)
    }

    /// The frame of a datagram, and when it is at the board.
    pub fn frame(&mut self, chip: u32, datagram: &Datagram, now_ps: u64) -> Option<(u64, Vec<u8>)> {
        let board = self.boards.get_mut(&chip)?;
        if datagram.data.len() > DATAGRAM_BYTES_MAX {
            return None;
        }
        board.identification = board.identification.wrapping_add(1);
        let identification = board.identification;
        let address = board.address;
        let mut frame = Vec::with_capacity(42 + datagram.data.len());
        frame.extend_from_slice(&address.mac);
        frame.extend_from_slice(&host_mac(*datagram.host.ip()));
        frame.extend_from_slice(&[0x08, 0x00, 0x45, 0x00]);
        frame.extend_from_slice(&(28 + datagram.data.len() as u16).to_be_bytes());
        frame.extend_from_slice(&identification.to_be_bytes());
        frame.extend_from_slice(&[0x40, 0x00, 64, 17, 0, 0]);
        frame.extend_from_slice(&datagram.host.ip().octets());
        frame.extend_from_slice(&address.ip.octets());
        let sum = internet_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        for half in [datagram.host.port(), datagram.port, 8 + datagram.data.len() as u16, 0] {
            frame.extend_from_slice(&half.to_be_bytes());
        }
        frame.extend_from_slice(&datagram.data);
        frame.resize(frame.len().max(60), 0);
        let time_ps = self.wire(chip, frame.len(), now_ps)?;
        Some((time_ps, frame))
    }

    /// A frame has come out of a board: a datagram, an ARP request whose answer is given back with the time at which it
    /// is at the board, or something else.
    pub fn take(&mut self, chip: u32, xy: ChipXy, time_ps: u64, frame: Vec<u8>) -> Option<(u64, Vec<u8>)> {
        if self.loses() {
            return None;
        }
        let half = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        if frame.len() >= 42 && half(12) == 0x0806 && half(20) == 1 {
            return self.answer_arp(chip, time_ps, &frame);
        }
        let length = if frame.len() >= 42 { usize::from(half(38)) } else { 0 };
        let is_udp = length >= 8 && half(12) == 0x0800 && frame[14] == 0x45 && frame[23] == 17;
        if is_udp && frame.len() >= 34 + length {
            let ip = Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33]);
            let host = SocketAddrV4::new(ip, half(36));
            let data = frame[42..34 + length].to_vec();
            let datagram = Datagram { board: xy, host, port: half(34), time_ns: time_ps / 1000, data };
            keep(&mut self.received, time_ps, datagram);
        } else {
            keep(&mut self.other, time_ps, (chip, frame));
        }
        None
    }

    /// Whether a datagram is out at `now_ps` that was not taken yet.
    pub fn has_datagram(&self, now_ps: u64) -> bool {
        self.received.front().is_some_and(|(time_ps, _)| *time_ps <= now_ps)
    }

    /// Takes the oldest datagram that is out at `now_ps`.
    pub fn take_datagram(&mut self, now_ps: u64) -> Option<Datagram> {
        self.has_datagram(now_ps).then(|| self.received.pop_front()).flatten().map(|(_, datagram)| datagram)
    }

    /// Takes the oldest other frame that is out at `now_ps`: when it was, its chip and itself.
    pub fn take_other(&mut self, now_ps: u64) -> Option<(u64, u32, Vec<u8>)> {
        self.other.front().filter(|(time_ps, _)| *time_ps <= now_ps)?;
        let (time_ps, (chip, frame)) = self.other.pop_front()?;
        Some((time_ps, chip, frame))
    }

    fn answer_arp(&mut self, chip: u32, time_ps: u64, frame: &[u8]) -> Option<(u64, Vec<u8>)> {
        let board = self.boards.get(&chip)?;
        let asked = Ipv4Addr::new(frame[38], frame[39], frame[40], frame[41]);
        // Nobody answers for an address of a board but the board.
        if asked == board.address.ip || asked.is_unspecified() {
            return None;
        }
        let mac = host_mac(asked);
        let mut answer = Vec::with_capacity(60);
        answer.extend_from_slice(&frame[6..12]);
        answer.extend_from_slice(&mac);
        answer.extend_from_slice(&frame[12..20]);
        answer.extend_from_slice(&2u16.to_be_bytes());
        answer.extend_from_slice(&mac);
        answer.extend_from_slice(&frame[38..42]);
        answer.extend_from_slice(&frame[22..32]);
        answer.resize(60, 0);
        let at_ps = self.wire(chip, answer.len(), time_ps)?;
        Some((at_ps, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::default_address;

    fn side() -> HostSide {
        HostSide::new(BTreeMap::from([(0, default_address(0))]), 0, 0)
    }

    #[test]
    fn the_recorded_arp_exchange_from_the_other_side() {
        let mut request = Vec::new();
        request.extend_from_slice(&[0xFF; 6]);
        request.extend_from_slice(&default_address(0).mac);
        request.extend_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        request.extend_from_slice(&default_address(0).mac);
        request.extend_from_slice(&[192, 168, 240, 253, 0, 0, 0, 0, 0, 0, 192, 168, 240, 254]);
        request.resize(60, 0);
        let (time_ps, answer) = side().take(0, ChipXy::new(0, 0), 1000, request).expect("answered");
        assert_eq!(time_ps, 1000 + 84 * 80_000);
        assert_eq!(&answer[..22], &[0, 0, 0xA4, 0, 0x3E, 0x0E, 2, 0, 192, 168, 240, 254, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        assert_eq!(&answer[28..32], &[192, 168, 240, 254]);
    }

    #[test]
    fn losses_come_as_often_as_wanted() {
        let mut side = HostSide::new(BTreeMap::from([(0, default_address(0))]), 6554, 7);
        let lost = (0..10_000).filter(|_| side.loses()).count();
        assert!((900..1100).contains(&lost), "{lost} of 10,000 at 10 %");
    }

    #[test]
    fn frames_follow_each_other_on_the_cable_and_datagrams_come_out() {
        let mut side = side();
        let datagram = Datagram {
            board: ChipXy::new(0, 0),
            host: "192.168.240.254:12345".parse().expect("an address"),
            port: 17893,
            time_ns: 0,
            data: vec![1, 2, 3],
        };
        let (first, frame) = side.frame(0, &datagram, 0).expect("short enough");
        let (second, _) = side.frame(0, &datagram, 0).expect("short enough");
        assert_eq!((first, second, frame.len()), (84 * 80_000, 2 * 84 * 80_000, 60));
        assert_eq!(internet_sum(&frame[14..34]), 0);
        // As if it came back from the board: host and board change places.
        let mut back = frame;
        back.copy_within(26..30, 30);
        side.take(0, ChipXy::new(0, 0), 5_000, back);
        assert!(side.take_datagram(4_999).is_none());
        let received = side.take_datagram(5_000).expect("one");
        assert_eq!((received.data, received.time_ns, received.port), (vec![1, 2, 3], 5, 12345));
        assert!(side.frame(0, &Datagram { data: vec![0; 1473], ..datagram }, 0).is_none());
        assert!(side.take(0, ChipXy::new(0, 0), 0, vec![1; 10]).is_none());
    }
}
