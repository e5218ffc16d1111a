//! What the datagrams of a stream mean: their bytes to numbers and back.

use spinnaker_wire::eieio::{BYTES_MAX, Command, CommandCode, DataPacket, DataRepr, DataType, DataWriter, Packet};
use spinnaker_wire::sdp::{self, Endpoint, Flags};
use spinnaker_wire::{ChipAddress, CorePort, WireError};

use crate::Error;

/// How samples travel in datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// EIEIO data packets of 32-bit keys with payloads.
    Keys(Keys),
    /// SDP messages.
    Sdp(Sdp),
}

/// Keys of an input or output. A key is, from the top: what is common to all, the sample's sequence number (its low bits), and the
/// number of the element, row-major. The payload is the element's value as IEEE binary32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// The key of element 0 of samples whose sequence bits are 0; the bits below are 0.
    pub base: u32,
    /// Bits of the element's number.
    pub element_bits: u32,
    /// Bits of the sequence number above them.
    pub sequence_bits: u32,
}

/// Messages whose body is the sequence number, the number of the first element (32 bits each, little-endian), and up to 66 values
/// as IEEE binary32 of that element and those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sdp {
    /// The tag that messages have; others are not ours.
    pub tag: u8,
    /// The SDP port (0 to 7) that they come from.
    pub port: u8,
}

/// Bytes in front of the values of an SDP message's body.
const SDP_HEAD_BYTES: usize = 8;
/// Values in an SDP message at most.
const SDP_VALUES_MAX: usize = (sdp::BODY_BYTES_MAX - SDP_HEAD_BYTES) / 4;
/// EIEIO command by which a receiver asks again for elements: sequence number as in the keys, first element, how many (32 bits each).
pub const ASK_AGAIN: CommandCode = CommandCode::Unknown(0x0A6A);
/// EIEIO command that answers [`ASK_AGAIN`] for a sample that the sender does not have any more: its sequence number (32 bits).
pub const GONE: CommandCode = CommandCode::Unknown(0x0A6B);

/// Part of a datagram that was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Value {
    /// As on the wire: the low bits.
    pub sequence: u32,
    pub element: u32,
    pub value: f32,
}

/// What a datagram says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    Values(Vec<Value>),
    /// When a sample was pushed and answered, in microseconds of machine time, modulo 2^32.
    Stamp {
        sequence: u32,
        answered_us: u32,
        pushed_us: u32,
    },
    Again {
        sequence: u32,
        first: u32,
        count: u32,
    },
    Gone {
        sequence: u32,
    },
    /// No more samples come; the number that the next would have, if the sender says so.
    End {
        next: Option<u32>,
    },
}

/// Why a datagram is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its tag, port or keys are not those of the layout.
    Foreign,
    /// It cannot be read, or has values that are not finite.
    Malformed,
}

impl From<WireError> for Fault {
    fn from(_: WireError) -> Fault {
        Fault::Malformed
    }
}

impl Keys {
    /// Keys from `base` on for so many elements: as many sequence bits as there is room for below `base`'s lowest one, 16 at most.
    ///
    /// # Errors
    /// A base that leaves no room for the elements and two bits of sequence number.
    pub fn for_elements(base: u32, elements: usize) -> Result<Keys, Error> {
        let element_bits = elements.max(2).next_power_of_two().trailing_zeros();
        let room = base.trailing_zeros().saturating_sub(element_bits);
        let keys = Keys { base, element_bits, sequence_bits: room.min(16) };
        keys.check(elements).map(|()| keys)
    }

    fn check(&self, elements: usize) -> Result<(), Error> {
        let below = self.element_bits.saturating_add(self.sequence_bits);
        let base_clear = below >= 32 && self.base == 0 || below < 32 && self.base.trailing_zeros() >= below;
        let fits = self.element_bits >= 1 && self.element_bits < 31 && elements <= 1 << self.element_bits;
        if fits && (2..=31).contains(&self.sequence_bits) && below <= 32 && base_clear {
            return Ok(());
        }
        Err(Error::Argument(format!(
            "keys from {:#x} with {} bits for the element and {} for the sequence number do not serve {elements} elements: give enough bits for the elements, at least 2 for the sequence, 32 together at most, and a base whose bits below are 0",
            self.base, self.element_bits, self.sequence_bits
        )))
    }

    fn key(&self, sequence: u32, element: u32) -> u32 {
        self.base | sequence << self.element_bits | element
    }

    fn split(&self, key: u32) -> Option<(u32, u32)> {
        let below = self.element_bits + self.sequence_bits;
        let mask = if below >= 32 { u32::MAX } else { (1 << below) - 1 };
        let element = key & ((1 << self.element_bits) - 1);
        (key & !mask == self.base).then_some(((key & mask) >> self.element_bits, element))
    }
}

impl Layout {
    /// Whether it serves an input or output of so many elements.
    pub(super) fn check(&self, elements: usize) -> Result<(), Error> {
        match self {
            Layout::Keys(keys) => keys.check(elements),
            Layout::Sdp(sdp) if sdp.port < 8 => Ok(()),
            Layout::Sdp(sdp) => Err(Error::Argument(format!("SDP port {}: give 0 to 7", sdp.port))),
        }
    }

    /// Bits of a sequence number on the wire.
    pub(super) fn sequence_bits(&self) -> u32 {
        match self {
            Layout::Keys(keys) => keys.sequence_bits,
            Layout::Sdp(_) => 32,
        }
    }

    /// A sequence number as on the wire.
    pub(super) fn wire(&self, sequence: u64) -> u32 {
        (sequence & ((1u64 << self.sequence_bits()) - 1)) as u32
    }

    /// The datagrams of some elements of a sample.
    pub(super) fn datagrams(&self, sequence: u64, first: usize, values: &[f32]) -> Result<Vec<Vec<u8>>, Error> {
        let wire = self.wire(sequence);
        let mut out = Vec::new();
        match self {
            Layout::Keys(keys) => {
                let repr = DataRepr::KEYS_AND_PAYLOADS;
                let each = repr.items_max(BYTES_MAX);
                for (number, part) in values.chunks(each).enumerate() {
                    let start = first + number * each;
                    let items =
                        part.iter().enumerate().map(|(i, value)| (keys.key(wire, (start + i) as u32), value.to_bits()));
                    out.push(data_packet(repr, items)?);
                }
            }
            Layout::Sdp(Sdp { tag, port }) => {
                for (number, part) in values.chunks(SDP_VALUES_MAX).enumerate() {
                    let start = (first + number * SDP_VALUES_MAX) as u32;
                    let mut body = [wire.to_le_bytes(), start.to_le_bytes()].concat();
                    body.extend(part.iter().flat_map(|value| value.to_le_bytes()));
                    let source = Endpoint { chip: ChipAddress(0), port: CorePort::new(1, *port) };
                    let head = sdp::Repr { flags: Flags::NO_REPLY, tag: *tag, destination: Endpoint::HOST, source };
                    let mut buffer = [0; sdp::UDP_BYTES_MAX];
                    let bytes = head.emit_udp(&body, &mut buffer).map_err(wire_error)?;
                    out.push(buffer[..bytes].to_vec());
                }
            }
        }
        Ok(out)
    }

    /// The datagram that says when a sample was pushed and answered: two items, their payloads time stamps.
    pub(super) fn stamp(keys: &Keys, sequence: u64, answered_us: u32, pushed_us: u32) -> Result<Vec<u8>, Error> {
        let wire = Layout::Keys(*keys).wire(sequence);
        let repr = DataRepr { timestamps: true, ..DataRepr::KEYS_AND_PAYLOADS };
        data_packet(repr, [(keys.key(wire, 0), answered_us), (keys.key(wire, 1), pushed_us)].into_iter())
    }

    /// Reads a datagram of an input or output of so many elements.
    pub(super) fn read(&self, bytes: &[u8], elements: usize) -> Result<Message, Fault> {
        // Two pads of zero begin an SDP message, so it is no EIEIO command.
        match (self, Packet::parse(bytes)) {
            (_, Ok(Packet::Command(command))) => read_command(&command),
            (Layout::Keys(keys), Ok(Packet::Data(data))) => read_data(keys, &data, elements),
            (Layout::Keys(_), Err(error)) => Err(error.into()),
            (Layout::Sdp(layout), _) => read_sdp(layout, bytes, elements),
        }
    }
}

fn wire_error(error: WireError) -> Error {
    Error::Argument(format!("a sample does not fit its datagrams: {error}"))
}

fn data_packet(repr: DataRepr, items: impl Iterator<Item = (u32, u32)>) -> Result<Vec<u8>, Error> {
    let mut buffer = [0; BYTES_MAX];
    let mut writer = DataWriter::new(repr, &mut buffer).map_err(wire_error)?;
    for (key, payload) in items {
        writer.push(key, Some(payload)).map_err(wire_error)?;
    }
    Ok(writer.finish().to_vec())
}

/// The datagram of a command with words for its body.
pub(super) fn command(code: CommandCode, words: &[u32]) -> Vec<u8> {
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut buffer = [0; BYTES_MAX];
    // Three words fit, and the codes have 14 bits.
    let bytes = Command::Other { code, body: &body }.emit(&mut buffer).unwrap_or(0);
    buffer[..bytes].to_vec()
}

fn read_command(command: &Command<'_>) -> Result<Message, Fault> {
    let Command::Other { code, body } = command else { return Err(Fault::Foreign) };
    let word = |i: usize| -> Result<u32, Fault> {
        let bytes = body.get(4 * i..4 * i + 4).and_then(|b| b.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or(Fault::Malformed)
    };
    match *code {
        ASK_AGAIN => Ok(Message::Again { sequence: word(0)?, first: word(1)?, count: word(2)? }),
        GONE => Ok(Message::Gone { sequence: word(0)? }),
        CommandCode::EventStop => Ok(Message::End { next: word(0).ok() }),
        _ => Err(Fault::Foreign),
    }
}

fn read_data(keys: &Keys, data: &DataPacket<'_>, elements: usize) -> Result<Message, Fault> {
    if data.repr.kind != DataType::Key32Payload {
        return Err(Fault::Malformed);
    }
    let mut items = Vec::with_capacity(data.len());
    for item in data.items() {
        let (sequence, element) = keys.split(item.key).ok_or(Fault::Foreign)?;
        items.push((sequence, element, item.payload.ok_or(Fault::Malformed)?));
    }
    if data.repr.timestamps {
        return match items[..] {
            [(sequence, 0, answered_us), (same, 1, pushed_us)] if same == sequence => {
                Ok(Message::Stamp { sequence, answered_us, pushed_us })
            }
            _ => Err(Fault::Malformed),
        };
    }
    let values = items.into_iter().map(|(sequence, element, payload)| {
        checked(Value { sequence, element, value: f32::from_bits(payload) }, elements)
    });
    Ok(Message::Values(values.collect::<Result<_, _>>()?))
}

fn read_sdp(layout: &Sdp, bytes: &[u8], elements: usize) -> Result<Message, Fault> {
    let packet = sdp::Packet::from_udp(bytes)?;
    let repr = packet.repr();
    if repr.tag != layout.tag || repr.source.port.port() != layout.port {
        return Err(Fault::Foreign);
    }
    let (words, []) = packet.body.as_chunks::<4>() else { return Err(Fault::Malformed) };
    let [sequence, first, values @ ..] = words else { return Err(Fault::Malformed) };
    let (sequence, first) = (u32::from_le_bytes(*sequence), u32::from_le_bytes(*first));
    let values = values.iter().enumerate().map(|(i, value)| {
        let element = first.checked_add(i as u32).ok_or(Fault::Malformed)?;
        checked(Value { sequence, element, value: f32::from_le_bytes(*value) }, elements)
    });
    Ok(Message::Values(values.collect::<Result<_, _>>()?))
}

fn checked(value: Value, elements: usize) -> Result<Value, Fault> {
    if (value.element as usize) < elements && value.value.is_finite() { Ok(value) } else { Err(Fault::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys = Keys { base: 0x5000_0000, element_bits: 10, sequence_bits: 8 };

    #[test]
    fn samples_come_back_from_their_datagrams() {
        let values: Vec<f32> = (0..784).map(|i| i as f32 * 0.5 - 7.0).collect();
        for layout in [Layout::Keys(KEYS), Layout::Sdp(Sdp { tag: 9, port: 3 })] {
            layout.check(784).unwrap();
            let mut seen = vec![None; 784];
            for datagram in layout.datagrams(0x1_0000_0103, 0, &values).unwrap() {
                let Ok(Message::Values(all)) = layout.read(&datagram, 784) else { panic!("{datagram:?}") };
                for v in all {
                    assert_eq!(v.sequence, layout.wire(0x1_0000_0103));
                    assert!(seen[v.element as usize].replace(v.value).is_none());
                }
            }
            assert!(seen.iter().zip(&values).all(|(a, b)| *a == Some(*b)));
        }
        // The official layout of a key and payload packet: header 0x0C01 (one item, type 3), key, payload.
        let datagrams = Layout::Keys(KEYS).datagrams(2, 5, &[1.0]).unwrap();
        assert_eq!(datagrams, [[1, 0x0C, 5, 8, 0, 0x50, 0, 0, 0x80, 0x3F]]);
    }

    #[test]
    fn stamps_and_commands_come_back() {
        let layout = Layout::Keys(KEYS);
        let stamp = Layout::stamp(&KEYS, 300, 70, 60).unwrap();
        let expected = Message::Stamp { sequence: 300 & 255, answered_us: 70, pushed_us: 60 };
        assert_eq!(layout.read(&stamp, 784), Ok(expected));
        for layout in [layout, Layout::Sdp(Sdp { tag: 9, port: 3 })] {
            let again = layout.read(&command(ASK_AGAIN, &[1, 2, 3]), 784);
            assert_eq!(again, Ok(Message::Again { sequence: 1, first: 2, count: 3 }));
            assert_eq!(layout.read(&command(GONE, &[7]), 784), Ok(Message::Gone { sequence: 7 }));
            for (body, next) in [(&[][..], None), (&[5], Some(5))] {
                assert_eq!(layout.read(&command(CommandCode::EventStop, body), 784), Ok(Message::End { next }));
            }
            assert_eq!(layout.read(&command(GONE, &[]), 784), Err(Fault::Malformed));
            assert_eq!(layout.read(&command(CommandCode::Padding, &[]), 784), Err(Fault::Foreign));
        }
    }

    #[test]
    fn what_is_not_ours_is_told_from_what_is_broken() {
        let other = Keys { base: 0x6000_0000, ..KEYS };
        let sdp = |tag, port| Layout::Sdp(Sdp { tag, port });
        let fault = |writer: Layout, reader: Layout, values: &[f32], elements| {
            reader.read(&writer.datagrams(1, 0, values).unwrap()[0], elements).unwrap_err()
        };
        assert_eq!(fault(Layout::Keys(other), Layout::Keys(KEYS), &[1.0], 784), Fault::Foreign);
        assert_eq!(fault(sdp(8, 3), sdp(9, 3), &[1.0], 784), Fault::Foreign);
        assert_eq!(fault(sdp(9, 2), sdp(9, 3), &[1.0], 784), Fault::Foreign);
        for layout in [Layout::Keys(KEYS), sdp(9, 3)] {
            assert_eq!(fault(layout, layout, &[f32::NAN], 784), Fault::Malformed);
            assert_eq!(fault(layout, layout, &[1.0; 5], 4), Fault::Malformed);
            assert_eq!(layout.read(&[], 4), Err(Fault::Malformed));
        }
    }

    #[test]
    fn whatever_comes_is_read_or_refused() {
        let mut state = 5u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for layout in [Layout::Keys(KEYS), Layout::Sdp(Sdp { tag: 9, port: 3 })] {
            let good = layout.datagrams(1, 0, &[0.5; 31]).unwrap().remove(0);
            let mut read = 0;
            for _ in 0..20_000 {
                let mut bytes = good.clone();
                for _ in 0..draw(4) {
                    let at = draw(bytes.len() as u64) as usize;
                    bytes[at] = draw(256) as u8;
                }
                bytes.truncate(draw(2 * good.len() as u64) as usize);
                if let Ok(Message::Values(values)) = layout.read(&bytes, 100) {
                    read += 1;
                    assert!(values.iter().all(|v| v.element < 100 && v.value.is_finite()));
                }
            }
            assert!((1000..20_000).contains(&read), "{read}");
        }
    }

    #[test]
    fn keys_need_room() {
        assert_eq!(Keys::for_elements(0x5000_0000, 784).unwrap(), Keys { sequence_bits: 16, ..KEYS });
        assert_eq!(Keys::for_elements(0, 10).unwrap(), Keys { base: 0, element_bits: 4, sequence_bits: 16 });
        for (base, elements) in [(1, 1), (0x800, 784), (0, 1 << 31)] {
            let message = Keys::for_elements(base, elements).unwrap_err().to_string();
            assert!(message.contains(&format!("{elements} elements")), "{message}");
        }
        assert!(Keys { sequence_bits: 23, base: 0, element_bits: 10 }.check(4).is_err());
        assert!(Keys { sequence_bits: 22, base: 0, element_bits: 10 }.check(1024).is_ok());
    }
}
