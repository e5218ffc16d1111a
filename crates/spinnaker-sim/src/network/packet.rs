//! A SpiNNaker packet: control byte, 32 bits, and perhaps a payload of 32 more.

/// Type of a packet: bits 7:6 of its control byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketKind {
    /// Multicast: routed by key.
    Multicast,
    /// Point to point: routed by the 16-bit address of a chip.
    PointToPoint,
    /// Nearest neighbour: over one link, or peek and poke of a neighbour.
    NearestNeighbour,
    /// Fixed route: to the monitor of an Ethernet chip, by one register.
    FixedRoute,
}

/// What a link did to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// A bit was turned.
    Parity,
    /// It was too short or too long.
    Framing,
}

/// A packet. The control byte is laid out as in the data sheet, section 8.3: type 7:6; emergency routing or sequence 5:4;
/// time stamp 3:2; payload 1; parity 0. Nearest-neighbour packets have T (peek/poke) in bit 5 and the route in bits 4:2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub control: u8,
    /// Routing key; of a P2P packet source 31:16 and destination 15:0.
    pub key: u32,
    /// Meaningless without bit 1 of the control byte.
    pub payload: u32,
    pub fault: Fault,
}

impl Packet {
    /// With the parity bit put in.
    pub fn new(control: u8, key: u32, payload: Option<u32>) -> Self {
        let control = (control & !0b10) | u8::from(payload.is_some()) << 1;
        Self { control, key, payload: payload.unwrap_or(0), fault: Fault::None }.with_parity()
    }

    /// Odd parity over the whole packet.
    pub fn with_parity(mut self) -> Self {
        let ones =
            (self.control & !1).count_ones() + self.key.count_ones() + self.payload_word().unwrap_or(0).count_ones();
        self.control = (self.control & !1) | u8::from(ones.is_multiple_of(2));
        self
    }

    pub fn kind(self) -> PacketKind {
        match self.control >> 6 {
            0 => PacketKind::Multicast,
            1 => PacketKind::PointToPoint,
            2 => PacketKind::NearestNeighbour,
            _ => PacketKind::FixedRoute,
        }
    }

    pub fn long(self) -> bool {
        self.control & 0b10 != 0
    }

    pub fn payload_word(self) -> Option<u32> {
        self.long().then_some(self.payload)
    }

    /// Bits 5:4: the emergency routing state of a multicast or fixed-route packet, the sequence code of a P2P packet.
    pub fn emergency(self) -> u8 {
        self.control >> 4 & 3
    }

    pub fn with_emergency(self, state: u8) -> Self {
        Self { control: (self.control & !0x30) | (state & 3) << 4, ..self }.with_parity()
    }

    /// Bits 3:2, the time at which it was sent.
    pub fn time_stamp(self) -> u8 {
        self.control >> 2 & 3
    }

    /// Peek or poke: a nearest-neighbour packet for the neighbour's router itself.
    pub fn is_direct(self) -> bool {
        self.kind() == PacketKind::NearestNeighbour && self.control & 0x20 != 0
    }

    /// Link (0 to 5), 6 for several or 7 for the local monitor: where a nearest-neighbour packet is to go.
    pub fn neighbour_route(self) -> u8 {
        self.control >> 2 & 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parity_is_odd_over_all_bits() {
        for (control, key, payload) in [(0x80, 0xA100_0003, Some(0x001F_0000)), (0, 0, None), (0x40, 7, None)] {
            let packet = Packet::new(control, key, payload);
            let ones = packet.control.count_ones() + key.count_ones() + payload.unwrap_or(0).count_ones();
            assert_eq!(ones % 2, 1);
            assert_eq!(packet.payload_word(), payload);
        }
    }

    #[test]
    fn fields_are_where_the_data_sheet_has_them() {
        let peek = Packet::new(0xA0 | 3 << 2, 0xE200_0000, None);
        assert!(peek.is_direct() && !peek.long());
        assert_eq!((peek.kind(), peek.neighbour_route()), (PacketKind::NearestNeighbour, 3));
        let diverted = Packet::new(0, 5, None).with_emergency(2);
        assert_eq!((diverted.kind(), diverted.emergency()), (PacketKind::Multicast, 2));
    }
}
