//! Packets as bytes: those that the official host makes.

extern crate std;
use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::testing::hex;

fn item(key: u32, payload: Option<u32>) -> Item {
    Item { key, payload }
}

#[test]
fn data_packets_of_the_official_host() {
    let upper = KeyPrefix { value: 0x7001, upper: true };
    let lower = KeyPrefix { value: 0x100, upper: false };
    let key16 = DataRepr { kind: DataType::Key16, ..DataRepr::KEYS };
    // As sent, what the header says, the items as put in, the items as they come out.
    type Case<'a> = (&'a str, DataRepr, &'a [(u32, Option<u32>)], &'a [Item]);
    let cases: [Case; 6] = [
        (
            "0208 78563412 05000000",
            DataRepr::KEYS,
            &[(0x1234_5678, None), (5, None)],
            &[item(0x1234_5678, None), item(5, None)],
        ),
        (
            "010c 00010000 efbeadde",
            DataRepr::KEYS_AND_PAYLOADS,
            &[(0x100, Some(0xDEAD_BEEF))],
            &[item(0x100, Some(0xDEAD_BEEF))],
        ),
        ("01c0 0170 0300", DataRepr { key_prefix: Some(upper), ..key16 }, &[(3, None)], &[item(0x7001_0003, None)]),
        (
            "02b0 0001 e803 0300 0400",
            DataRepr { key_prefix: Some(lower), payload_prefix: Some(1000), timestamps: true, ..key16 },
            &[(3, None), (4, None)],
            &[item(0x103, Some(1000)), item(0x104, Some(1000))],
        ),
        (
            "0128 04030201 03000000",
            DataRepr { payload_prefix: Some(0x0102_0304), ..DataRepr::KEYS },
            &[(3, None)],
            &[item(3, Some(0x0102_0304))],
        ),
        (
            "0104 0300 0400",
            DataRepr { kind: DataType::Key16Payload, ..DataRepr::KEYS },
            &[(3, Some(4))],
            &[item(3, Some(4))],
        ),
    ];
    for (text, repr, put, items) in cases {
        let bytes = hex(text);
        let Ok(Packet::Data(data)) = Packet::parse(&bytes) else { panic!("{text}") };
        assert_eq!(data.repr, repr, "{text}");
        assert_eq!(data.items().collect::<Vec<_>>(), items);
        let mut buffer = [0; BYTES_MAX];
        let mut writer = DataWriter::new(repr, &mut buffer).unwrap();
        for (key, payload) in put {
            writer.push(*key, *payload).unwrap();
        }
        assert_eq!(writer.finish(), &bytes[..]);
        let length = data.emit(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], &bytes[..]);
        for cut in 0..bytes.len() {
            assert!(Packet::parse(&bytes[..cut]).is_err(), "{text} {cut}");
        }
    }
}

#[test]
fn commands_of_the_official_host() {
    let code = |text: &str| match Packet::parse(&hex(text)) {
        Ok(Packet::Command(command)) => command.code(),
        other => panic!("{text}: {other:?}"),
    };
    for (text, expected) in [
        ("0340", CommandCode::EventStop),
        ("0440", CommandCode::StopRequests),
        ("0540", CommandCode::StartRequests),
        ("0240", CommandCode::Padding),
        ("0a40", CommandCode::StopPause),
        ("0b40", CommandCode::StartResume),
        ("0c40 09", CommandCode::DataReadAck),
        ("0140 2f746d702f6462", CommandCode::Database),
        ("0640 0201 1800 0405 58020000", CommandCode::RequestBuffers),
        ("0740 0407 0108 cdab0000", CommandCode::SequencedData),
        ("0840 0102 1a09 0004 00002460 64000000 0000 0105 00002560 c8000000", CommandCode::ReadData),
        ("0940 0209 0000 0004 64000000 0000 0105 c8000000", CommandCode::DataRead),
    ] {
        assert_eq!(code(text), expected, "{text}");
        let bytes = hex(text);
        let packet = Packet::parse(&bytes).unwrap();
        let mut buffer = [0; BYTES_MAX];
        let length = packet.emit(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], &bytes[..], "{packet}");
    }
}

#[test]
fn what_cores_and_hosts_ask() {
    let bytes = hex("0640 0201 1800 0405 58020000");
    let Ok(Packet::Command(Command::RequestBuffers(request))) = Packet::parse(&bytes) else { panic!() };
    assert_eq!(request.core(), (ChipAddress::new(1, 2), 3));
    assert_eq!((request.region, request.sequence, request.space_bytes.get()), (4, 5, 600));

    let bytes = hex("0840 0102 1a09 0004 00002460 64000000 0000 0105 00002560 c8000000");
    let Ok(Packet::Command(Command::ReadData(read))) = Packet::parse(&bytes) else { panic!() };
    assert_eq!((read.chip, read.core, read.sequence), (ChipAddress::new(1, 2), 3, 9));
    let requests: Vec<ReadRequest> = read.requests().copied().collect();
    assert_eq!((requests[0].region, requests[0].address.get()), (4, 0x6024_0000));
    assert_eq!((requests[1].channel, requests[1].length_bytes.get()), (1, 200));
    let mut buffer = [0; 64];
    let length = ReadData::emit(read.chip, read.core, read.sequence, &requests, &mut buffer).unwrap();
    assert_eq!(&buffer[..length], &bytes[..]);

    let bytes = hex("0940 0209 0000 0004 64000000 0000 0105 c8000000");
    let Ok(Packet::Command(command)) = Packet::parse(&bytes) else { panic!() };
    assert_eq!(command.done().len(), 2);
    assert_eq!((command.done()[1].region, command.done()[1].length_bytes.get()), (5, 200));

    let bytes = hex("0740 0407 0108 cdab0000");
    let Ok(Packet::Command(Command::SequencedData { region: 4, sequence: 7, data })) = Packet::parse(&bytes) else {
        panic!()
    };
    assert_eq!(data.items().next(), Some(item(0xABCD, None)));
    assert!(Packet::parse(&hex("0740 0407 0340")).is_err(), "a command within data");
}

#[test]
fn a_packet_has_bounds() {
    assert_eq!(DataRepr::KEYS.items_max(BYTES_MAX), 63);
    assert_eq!(DataRepr::KEYS_AND_PAYLOADS.items_max(BYTES_MAX), 31);
    assert_eq!(DataRepr { kind: DataType::Key16, ..DataRepr::KEYS }.items_max(10_000), ITEMS_MAX);
    let mut buffer = [0; 10];
    let mut writer = DataWriter::new(DataRepr::KEYS, &mut buffer).unwrap();
    assert!(writer.push(1, None).is_ok() && writer.push(2, None).is_ok());
    assert!(writer.push(3, None).is_err());
    assert_eq!(writer.finish().len(), 10);
    let key16 = DataRepr { kind: DataType::Key16, ..DataRepr::KEYS };
    let mut buffer = [0; 1024];
    let mut writer = DataWriter::new(key16, &mut buffer).unwrap();
    assert!(writer.push(0x1_0000, None).is_err());
    for key in 0..255 {
        writer.push(key, None).unwrap();
    }
    assert!(writer.push(255, None).is_err(), "the count has eight bits");
    assert_eq!(writer.finish().len(), 512);
    assert!(DataWriter::new(DataRepr { tag: 4, ..key16 }, &mut [0; 16]).is_err());
    assert!(DataWriter::new(DataRepr { payload_prefix: Some(0x1_0000), ..key16 }, &mut [0; 16]).is_err());
}

proptest! {
    #[test]
    fn what_is_read_is_written_the_same(
        head in prop_oneof![any::<u16>(), (0u16..14).prop_map(|c| 0x4000 | c), (0u16..32).prop_map(|f| f << 10 | 3)],
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [head.to_le_bytes().as_bytes(), &rest[..]].concat();
        if let Ok(packet) = Packet::parse(&bytes) {
            let mut buffer = [0; 2100];
            let length = packet.emit(&mut buffer).unwrap();
            prop_assert_eq!(Packet::parse(&buffer[..length]), Ok(packet));
            // What is not pad or behind the packet is the same.
            if let Packet::Data(_) = packet {
                prop_assert_eq!(&buffer[..length], &bytes[..length]);
            }
            prop_assert!(!packet.to_string().contains('\n'));
        }
    }

    #[test]
    fn items_come_out_as_they_went_in(
        keys in proptest::collection::vec(any::<(u32, u32)>(), 0..31),
        upper in any::<bool>(),
        prefix in proptest::option::of(any::<u16>()),
    ) {
        let prefix = prefix.map(|value| KeyPrefix { value, upper });
        let repr = DataRepr { key_prefix: prefix, ..DataRepr::KEYS_AND_PAYLOADS };
        let mut buffer = [0; BYTES_MAX];
        let mut writer = DataWriter::new(repr, &mut buffer).unwrap();
        for (key, payload) in &keys {
            writer.push(*key, Some(*payload)).unwrap();
        }
        let Ok(Packet::Data(data)) = Packet::parse(writer.finish()) else { panic!() };
        prop_assert_eq!(data.len(), keys.len());
        let joined = prefix.map_or(0, |p| u32::from(p.value) << if p.upper { 16 } else { 0 });
        for (item, (key, payload)) in data.items().zip(&keys) {
            prop_assert_eq!(item, Item { key: key | joined, payload: Some(*payload) });
        }
    }
}
