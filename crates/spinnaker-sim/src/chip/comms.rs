//! Communications controller, one per core. Data sheet section 8.
//!
//! The transmit side has one packet on its way to the router (which holds it there while the router is stalled) and one in
//! the register behind it; the receive side one in the register and one on the path from the router, which is what blocks
//! the router's output.

use super::vic::source;
use crate::network::{Fault, Packet, PacketKind};

/// A packet and where it came from: a link (0 to 5), or 7 from a core of the chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Routed {
    pub packet: Packet,
    pub route: u8,
}

/// Route of packets of this chip's own.
pub(crate) const LOCAL: u8 = 7;

/// What writing the key register did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way: the core's event follows when all its bytes are out.
    Started,
    /// It waits in the register.
    Queued,
    /// There was no room: it is lost.
    Lost,
}

pub(crate) struct Comms {
    control: u8,
    full: bool,
    overrun: bool,
    data: u32,
    data_written: bool,
    source: u32,
    test: u32,
    sending: Option<Routed>,
    waiting: Option<Routed>,
    received: Option<Routed>,
    path: Option<Routed>,
    /// The packet of the path is at the register and waits for it.
    path_ready: bool,
    parity_error: bool,
    framing_error: bool,
    last_data: u32,
    last_key: u32,
    /// Packets sent, received and lost since reset.
    pub sent: u64,
    pub taken: u64,
    pub lost: u64,
}

impl Comms {
    pub fn new() -> Self {
        Self {
            control: 0,
            full: false,
            overrun: false,
            data: 0,
            data_written: false,
            source: 0x0700_0000,
            test: 0,
            sending: None,
            waiting: None,
            received: None,
            path: None,
            path_ready: false,
            parity_error: false,
            framing_error: false,
            last_data: 0,
            last_key: 0,
            sent: 0,
            taken: 0,
            lost: 0,
        }
    }

    /// As after a reset of the core: the registers; packets underway on the paths are lost with it, but for what the
    /// router has in its hands.
    pub fn reset(&mut self) {
        let (sent, taken, lost) = (self.sent, self.taken, self.lost);
        let (sending, path, path_ready) = (self.sending, self.path, self.path_ready);
        *self = Self { sent, taken, lost, sending, path, path_ready, ..Self::new() };
    }

    /// Reads a register without effect. The key register is read by [`Comms::take`].
    pub fn read(&self, offset: u32) -> u32 {
        match offset {
            0x00 => self.transmit_status(),
            0x04 => self.data,
            0x0C => self.receive_status(),
            0x10 => self.received.map_or(self.last_data, |routed| routed.packet.payload),
            0x18 => self.source,
            0x1C => self.test,
            _ => 0,
        }
    }

    fn transmit_status(&self) -> u32 {
        u32::from(self.empty()) << 31
            | u32::from(self.full) << 30
            | u32::from(self.overrun) << 29
            | u32::from(self.waiting.is_none()) << 28
            | u32::from(self.control) << 16
    }

    fn receive_status(&self) -> u32 {
        let errors = u32::from(self.parity_error) << 30 | u32::from(self.framing_error) << 29;
        let Some(Routed { packet, route }) = self.received else { return errors };
        let kind = match packet.kind() {
            PacketKind::Multicast => 1,
            PacketKind::PointToPoint => 2,
            PacketKind::NearestNeighbour => 4,
            PacketKind::FixedRoute => 8,
        };
        let good = u32::from(packet.fault == Fault::None) << 28;
        1 << 31 | errors | good | u32::from(route) << 24 | u32::from(packet.control) << 16 | kind
    }

    fn empty(&self) -> bool {
        self.sending.is_none() && self.waiting.is_none()
    }

    /// The packet in the receive register is taken: its key. The path behind it is free when its packet moves up:
    /// [`Comms::move_up`].
    pub fn take(&mut self) -> u32 {
        if let Some(Routed { packet, .. }) = self.received.take() {
            self.taken += 1;
            self.last_data = packet.payload;
            self.last_key = match packet.kind() {
                PacketKind::PointToPoint => packet.key >> 16 | u32::from(packet.emergency()) << 16,
                _ => packet.key,
            };
        }
        self.last_key
    }

    /// Writes a register but for the key: [`Comms::send`].
    pub fn write(&mut self, offset: u32, value: u32) {
        match offset {
            0x00 => {
                self.control = (value >> 16) as u8;
                self.full &= value >> 30 & 1 != 0;
                self.overrun &= value >> 29 & 1 != 0;
            }
            0x04 => {
                self.data = value;
                self.data_written = true;
            }
            0x0C => {
                self.parity_error &= value >> 30 & 1 != 0;
                self.framing_error &= value >> 29 & 1 != 0;
            }
            0x18 => self.source = value & 0x0700_FFFF,
            0x1C => self.test = value & 1,
            _ => {}
        }
    }

    /// The key register is written: a packet goes out. `time_phase` is the router's.
    pub fn send(&mut self, key: u32, time_phase: u8) -> Sent {
        let payload = std::mem::take(&mut self.data_written).then_some(self.data);
        let (mut control, mut word) = (self.control, key);
        if control >> 6 == 1 {
            control = (control & !0x30) | (key >> 12 & 0x30) as u8;
            word = self.source << 16 | key & 0xFFFF;
        }
        let route = (self.source >> 24 & 7) as u8;
        if route == LOCAL && control >> 6 != 2 {
            control = (control & !0x0C) | (time_phase & 3) << 2;
        }
        let packet = Routed { packet: Packet::new(control, word, payload), route };
        if self.waiting.is_some() {
            self.overrun = true;
            self.lost += 1;
            return Sent::Lost;
        }
        self.sent += 1;
        if self.sending.is_some() {
            self.waiting = Some(packet);
            self.full = true;
            return Sent::Queued;
        }
        self.sending = Some(packet);
        Sent::Started
    }

    /// The packet on its way to the router.
    pub fn sending(&self) -> Option<Routed> {
        self.sending
    }

    /// The router has taken it: the next one starts, if there is one.
    pub fn accepted(&mut self) -> Option<Routed> {
        self.sending = self.waiting.take();
        self.sending
    }

    /// Whether the path from the router takes a packet.
    pub fn path_free(&self) -> bool {
        self.path.is_none()
    }

    /// The router puts a packet on the path. Only when it is free.
    pub fn put(&mut self, routed: Routed) {
        debug_assert!(self.path.is_none());
        self.path = Some(routed);
        self.path_ready = false;
    }

    /// The packet of the path has come to its end.
    pub fn path_end(&mut self) {
        self.path_ready = self.path.is_some();
    }

    /// Whether a packet stands before the receive register and that is empty.
    pub fn can_move_up(&self) -> bool {
        self.path_ready && self.received.is_none()
    }

    /// The packet at the end of the path moves into the register. True if it did: the path is free.
    pub fn move_up(&mut self) -> bool {
        if !self.can_move_up() {
            return false;
        }
        self.path_ready = false;
        self.received = self.path.take();
        if let Some(Routed { packet, .. }) = self.received {
            self.parity_error |= packet.fault == Fault::Parity;
            self.framing_error |= packet.fault == Fault::Framing;
        }
        true
    }

    /// What is in the receive register.
    pub fn received(&self) -> Option<Routed> {
        self.received
    }

    /// Interrupt sources of this controller.
    pub fn lines(&self) -> u32 {
        let received = match self.received {
            None => 0,
            Some(Routed { packet, .. }) => {
                1 << source::CC_RECEIVED
                    | match packet.kind() {
                        PacketKind::Multicast => 1 << source::CC_MC,
                        PacketKind::PointToPoint => 1 << source::CC_P2P,
                        PacketKind::NearestNeighbour => 1 << source::CC_NN,
                        PacketKind::FixedRoute => 1 << source::CC_FR,
                    }
            }
        };
        received
            | u32::from(self.parity_error) << source::CC_PARITY
            | u32::from(self.framing_error) << source::CC_FRAMING
            | u32::from(self.full) << source::CC_TX_FULL
            | u32::from(self.overrun) << source::CC_TX_OVERRUN
            | u32::from(self.empty()) << source::CC_TX_EMPTY
            | u32::from(self.waiting.is_none()) << source::CC_TX_NOT_FULL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_keeps_one_and_queues_one() {
        let mut comms = Comms::new();
        assert_eq!(comms.read(0x00), 0x9000_0000);
        assert_eq!(comms.read(0x18), 0x0700_0000);
        comms.write(0x00, 0x0082_0000);
        comms.write(0x04, 0x1234);
        assert_eq!(comms.send(0xA100_0003, 0), Sent::Started);
        assert_eq!(comms.read(0x00), 0x1082_0000);
        assert_eq!(comms.send(5, 0), Sent::Queued);
        assert_eq!(comms.read(0x00), 0x4082_0000);
        assert_eq!(comms.send(6, 0), Sent::Lost);
        assert_eq!(comms.read(0x00), 0x6082_0000);
        let first = comms.sending().expect("one");
        assert_eq!((first.packet.key, first.packet.payload_word(), first.route), (0xA100_0003, Some(0x1234), LOCAL));
        let second = comms.accepted().expect("two");
        // No payload was written for it: the bit goes.
        assert_eq!((second.packet.key, second.packet.payload_word()), (5, None));
        assert_eq!(comms.accepted(), None);
        // Full and overrun stay until they are cleared.
        assert_eq!(comms.read(0x00), 0xF082_0000);
        comms.write(0x00, 0x0082_0000);
        assert_eq!(comms.read(0x00), 0x9082_0000);
    }

    #[test]
    fn point_to_point_packets_carry_source_and_sequence() {
        let mut comms = Comms::new();
        comms.write(0x18, 0x0700_0102);
        comms.write(0x00, 0x0040_0000);
        comms.send(0x0001_0304, 0);
        let Routed { packet, route } = comms.sending().expect("sent");
        assert_eq!((packet.key, packet.emergency()), (0x0102_0304, 1));
        let mut receiver = Comms::new();
        receiver.put(Routed { packet, route });
        assert!(!receiver.can_move_up() && !receiver.path_free());
        receiver.path_end();
        assert!(receiver.move_up() && receiver.path_free());
        assert_eq!(receiver.read(0x0C) & 0x9700_000F, 0x9700_0002);
        assert_eq!(receiver.lines() & 0x0F00_0040, 0x0200_0040);
        assert_eq!(receiver.take(), 0x0001_0102);
        assert_eq!(receiver.lines() & 0x0F00_0040, 0);
    }

    #[test]
    fn error_bits_stay_until_cleared() {
        let mut comms = Comms::new();
        let packet = Packet { fault: Fault::Parity, ..Packet::new(0x80, 3, None) };
        comms.put(Routed { packet, route: 2 });
        comms.path_end();
        comms.move_up();
        assert_eq!(comms.read(0x0C) >> 24, 0xC2);
        comms.take();
        assert_eq!(comms.read(0x0C), 0x4000_0000);
        comms.write(0x0C, 0);
        assert_eq!(comms.read(0x0C), 0);
    }
}
