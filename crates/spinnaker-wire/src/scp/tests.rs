//! Requests and replies as bytes: those of the official monitor (release 4.0.0, seen on a functional model of a four-chip
//! board) and those that the official host sends.

extern crate std;
use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::iptag::{self, Target, TimeoutCode};
use crate::router::P2pRoute;
use crate::testing::hex;
use crate::vcpu::CoreState;
use crate::{AppId, ChipAddress, CoreMask, CorePort, LinkId, Unit};

const SDRAM: u32 = 0x6024_0000;

/// Takes a request (UDP payload) apart, builds it again, and holds both against what is expected.
fn check_request(bytes: &[u8], seq: u16, expected: Command<'_>) {
    let packet = sdp::Packet::from_udp(bytes).unwrap();
    let request = Request::parse(packet.body).unwrap();
    assert_eq!(request, Request { seq, command: expected });
    let mut buffer = [0xAA; sdp::UDP_BYTES_MAX];
    let length = emit_udp_request(&packet.repr(), &request, &mut buffer).unwrap();
    assert_eq!(&buffer[..length], bytes, "{request}");
    assert_eq!(length, request.buffer_len() + sdp::HEADER_BYTES + sdp::UDP_PAD_BYTES);
    assert!(!request.to_string().contains('\n'));
}

/// Takes a reply apart and returns code, sequence number and payload; builds it again.
fn check_reply(text: &str) -> (ReturnCode, u16, Vec<u8>) {
    let bytes = hex(text);
    let packet = sdp::Packet::from_udp(&bytes).unwrap();
    let reply = Packet::new_checked(packet.body).unwrap();
    let mut buffer = [0xAA; sdp::UDP_BYTES_MAX];
    let (code, seq) = (reply.return_code(), reply.seq());
    let length = emit_udp_reply(&packet.repr(), code, seq, reply.payload, &mut buffer).unwrap();
    // The monitor does not define the pads.
    assert_eq!(buffer[sdp::UDP_PAD_BYTES..length], bytes[sdp::UDP_PAD_BYTES..]);
    assert!(reply.to_string().starts_with("scp reply"));
    (code, seq, reply.payload.to_vec())
}

#[test]
fn requests_that_the_monitor_answered() {
    let alloc = |app, length_bytes, tag, existing| {
        Command::Alloc(AllocCommand::Sdram { app: AppId(app), length_bytes, tag, existing })
    };
    let app = AppId(17);
    let sync0 = SignalWord { signal: Signal::Sync0, app_mask: 0xFF, app: AppId(16) };
    let cases: [(&str, u16, Command<'_>); 24] = [
        ("000087ff00ff0101000000000200000000000000000000000000", 2, Command::Version),
        ("000087ff00ff000000001f000500000000000000000000000000", 5, Command::Info),
        (
            "000087ff00ff0000000002000700007f00f54000000002000000",
            7,
            Command::Read { address: 0xF500_7F00, length_bytes: 64, unit: Unit::Word },
        ),
        (
            "000087ff00ff00000000030008000000246008000000020000000102030405060708",
            8,
            Command::Write { address: SDRAM, unit: Unit::Word, data: &[1, 2, 3, 4, 5, 6, 7, 8] },
        ),
        (
            "000087ff00ff000000000500090010002460efbeadde08000000",
            9,
            Command::Fill { address: SDRAM + 16, word: 0xDEAD_BEEF, length_bytes: 8 },
        ),
        (
            "000087ff00ff0000000002000b00010024600300000000000000",
            11,
            Command::Read { address: SDRAM + 1, length_bytes: 3, unit: Unit::Byte },
        ),
        (
            "000087ff00ff0000000002000c00010024600101000000000000",
            12,
            Command::Read { address: SDRAM + 1, length_bytes: 257, unit: Unit::Byte },
        ),
        (
            "000087ff00ff0000000011000d00000000e20400000000000000",
            13,
            Command::LinkRead { address: 0xE200_0000, length_bytes: 4, link: LinkId::East },
        ),
        (
            "000087ff00ff0000000011000e00000000e20400000003000000",
            14,
            Command::LinkRead { address: 0xE200_0000, length_bytes: 4, link: LinkId::West },
        ),
        ("000087ff00ff000000001c000f0000110000e803000005000000", 15, alloc(17, 1000, 5, false)),
        ("000087ff00ff000000001c00110000110400e803000005000000", 17, alloc(17, 1000, 5, true)),
        ("000087ff00ff000000001c001200060000000000000000000000", 18, Command::Alloc(AllocCommand::SdramSpace)),
        (
            "000087ff00ff000000001c001300031100000a00000000000000",
            19,
            Command::Alloc(AllocCommand::Routes { app, count: 10 }),
        ),
        (
            "000087ff00ff000000001c001400071100000500000000000000",
            20,
            Command::Alloc(AllocCommand::TagAddress { app, tag: 5 }),
        ),
        ("000087ff00ff000000001c001500021100000000000000000000", 21, Command::Alloc(AllocCommand::FreeSdramOf { app })),
        (
            "000087ff00ff000000001c001600051100000100000000000000",
            22,
            Command::Alloc(AllocCommand::FreeRoutesOf { app, clear: true }),
        ),
        (
            "000087ff00ff000000001a00170001000100e645000000000000",
            23,
            Command::IpTag(iptag::Command::Set { tag: 1, target: Target::to_host([0; 4], 17894, false) }),
        ),
        (
            "000087ff00ff000000001a001800010002000100000000000000",
            24,
            Command::IpTag(iptag::Command::Get { tag: 1, count: 1 }),
        ),
        (
            "000087ff00ff000000001a001900000004001000000000000000",
            25,
            Command::IpTag(iptag::Command::TransientTimeout { timeout: None }),
        ),
        ("000087ff00ff0000000019001a00010000000000000000000000", 26, Command::Led(LedAction::Toggle.for_led(0))),
        (
            "000087ff00ff0000000063001b00000000000000000000000000",
            27,
            Command::Other { code: CommandCode::Unknown(99), args: [0; 3], data: &[] },
        ),
        ("000087ff13ff0000000000001c00000000000000000000000000", 28, Command::Version),
        (
            "000087ff00ff000000000f001d00000000000f00000000000000",
            29,
            Command::Count { app: AppId(0), state: CoreState::Idle },
        ),
        (
            "000087ff00ff0000000016001e000000000010ff0400ffff0000",
            30,
            Command::Signal { transport: SignalTransport::Multicast, word: sync0 },
        ),
    ];
    for (text, seq, command) in cases {
        check_request(&hex(text), seq, command);
    }
}

#[test]
fn requests_of_the_official_host() {
    let app = AppId(30);
    let start = StartWord { app, flags: StartWord::WAIT, cores: CoreMask(0b110) };
    let reverse = Target::reverse(12345, ChipAddress::new(1, 2), CorePort::new(3, 1));
    let tag = |tag, target| Command::IpTag(iptag::Command::Set { tag, target });
    let nnp = |key, payload, control| Command::NearestNeighbour { key, payload, control };
    let cases = [
        ("1a003412 03000110 e7450000 c0a80102", tag(3, Target::to_host([192, 168, 1, 2], 17895, true))),
        ("1a003412 03000150 00000000 00000000", tag(3, Target::to_sender(true))),
        ("1a003412 04230130 39300201 00000000", tag(4, reverse)),
        ("1a003412 03000300 00000000 00000000", Command::IpTag(iptag::Command::Clear { tag: 3 })),
        (
            "15003412 c3b3a291 e8030000 0600061e",
            Command::ApplicationCopyRun {
                link: LinkId::West,
                checksum: 0x1234_5678,
                length_bytes: 1000,
                start: StartWord { cores: CoreMask(0x2_0006), ..start },
            },
        ),
        ("13003412 0600041e 00000000 00000000", Command::ApplicationRun(start)),
        ("0f003412 1e000000 07000000 00000000", Command::Count { app, state: CoreState::Run }),
        (
            "16003412 00000000 1eff0400 ffff0000",
            Command::Signal { transport: Signal::Sync0.transport(), word: SignalWord::to_app(Signal::Sync0, app) },
        ),
        (
            "16003412 02000000 1eff0200 ffff0000",
            Command::Signal { transport: Signal::Stop.transport(), word: SignalWord::to_app(Signal::Stop, app) },
        ),
        (
            "1c003412 001e0400 00100000 07000000",
            Command::Alloc(AllocCommand::Sdram { app, length_bytes: 4096, tag: 7, existing: true }),
        ),
        ("1c003412 031e0000 0a000000 00000000", Command::Alloc(AllocCommand::Routes { app, count: 10 })),
        (
            "1d003412 021e0a00 00008067 05000000",
            Command::Router(RouterCommand::Load { app, count: 10, table: 0x6780_0000, base: 5 }),
        ),
        ("1d003412 00000000 00000000 00000000", Command::Router(RouterCommand::ClearAll)),
        ("1d003412 031e0000 41000000 00000000", Command::Router(RouterCommand::WriteFixedRoute { app, route: 0x41 })),
        ("1d003412 031e0000 00000080 00000000", Command::Router(RouterCommand::ReadFixedRoute { app })),
        (
            "17003412 0c001e3f 00010200 00028067 0001020304050607",
            Command::FloodFillData(FloodBlock {
                links: 0x3F,
                repeat: 0x1E,
                id: 12,
                block: 2,
                address: 0x6780_0200,
                data: &[0, 1, 2, 3, 4, 5, 6, 7],
            }),
        ),
        ("14003412 00030c06 ffff0000 1a3f0080", nnp(0x060C_0300, 0xFFFF, NnpControl::new(true, 0x3F, 2, 3))),
        ("14003412 0c00000f 0600041e 1a3f0000", nnp(0x0F00_000C, start.word(), NnpControl(0x3F1A))),
        ("14003412 00003f00 1eff0250 003f0080", nnp(0x003F_0000, 0x5002_FF1E, NnpControl::new(true, 0x3F, 0, 0))),
        ("20003412 01000000 00000000 00000000", Command::Sync(true)),
        (
            "11003412 00002460 08000000 03000000",
            Command::LinkRead { address: SDRAM, length_bytes: 8, link: LinkId::West },
        ),
        (
            "12003412 00002460 04000000 03000000 01020304",
            Command::LinkWrite { address: SDRAM, link: LinkId::West, data: &[1, 2, 3, 4] },
        ),
        ("05003412 00002460 efbeadde 40000000", Command::Fill { address: SDRAM, word: 0xDEAD_BEEF, length_bytes: 64 }),
        (
            "03003412 01002460 03000000 00000000 616263",
            Command::Write { address: SDRAM + 1, unit: Unit::for_range(SDRAM + 1, 3), data: b"abc" },
        ),
        (
            "02003412 02002460 06000000 01000000",
            Command::Read { address: SDRAM + 2, length_bytes: 6, unit: Unit::for_range(SDRAM + 2, 6) },
        ),
    ];
    for (body, command) in cases {
        let bytes = [hex("0000 87ff00ff00000000"), hex(body)].concat();
        check_request(&bytes, 0x1234, command);
    }
    let read = SerialRomAccess::read(0x100, 256);
    assert_eq!(Command::SerialRom(read).arguments(), Ok([256 << 16 | 32, 0x0300_0100, 0]));
}

#[test]
fn replies_of_the_monitor() {
    // Too short a request: the code says "done", the payload is missing.
    let (code, seq, payload) = check_reply("00000708ff000000000080000100");
    assert_eq!((code, seq, payload.len()), (ReturnCode::Ok, 1, 0));
    assert!(Version::parse(&payload).is_err());

    let (_, _, payload) =
        check_reply("00000709ff000000010180000200001101010001fffff43357655343264d502f5370694e4e616b657200342e302e3000");
    let version = Version::parse(&payload).unwrap();
    assert_eq!((version.virtual_core, version.physical_core), (0, 17));
    assert_eq!((version.chip, version.buffer_bytes), (ChipAddress::new(1, 1), 256));
    assert_eq!((version.name, version.hardware, version.number), ("SC&MP", "SpiNNaker", (4, 0, 0)));
    assert_eq!(version.to_string(), "SC&MP/SpiNNaker 4.0.0 on 1,1,0");
    let mut buffer = [0; 64];
    let length = version.emit(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], &payload[..]);

    let (_, _, payload) =
        check_reply("00008709ff010000000080000400010000000001fffff53357655341524b2f5370694e4e616b657200342e302e3000");
    assert_eq!(Version::parse(&payload).unwrap().name, "SARK");
}

#[test]
fn facts_of_chips() {
    let (_, _, payload) = check_reply(
        "00000708ff00000000008000050012e7ff02e0ff1b07dc560000070f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0000c0a8f0fd0700",
    );
    let info = ChipInfo::parse(&payload).unwrap();
    assert_eq!((info.cores, info.links, info.routes_free), (18, 0x27, 1023));
    assert!(info.ethernet_up);
    assert_eq!((info.sdram_bytes, info.sysram_bytes), (0x071B_FFE0, 22236));
    assert_eq!((info.states[0], info.states[17]), (CoreState::Run, CoreState::Idle));
    assert_eq!((info.ip, info.parent), (Some([192, 168, 240, 253]), Some(P2pRoute::Monitor)));
    let mut buffer = [0; 64];
    assert_eq!(info.emit(&mut buffer), Ok(ChipInfo::BYTES));
    assert_eq!(&buffer[..38], &payload[..]);

    let (_, _, payload) = check_reply(
        "00000709ff00000001018000060012fcff00e0ff1b07dc560000070f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0000000000000400",
    );
    let info = ChipInfo::parse(&payload).unwrap();
    assert_eq!((info.ip, info.parent), (None, Some(P2pRoute::SouthWest)));
    assert!(!info.ethernet_up);
    // An older monitor leaves the last two bytes out.
    assert_eq!(ChipInfo::parse(&payload[..36]).unwrap().parent, None);
    assert!(ChipInfo::parse(&payload[..35]).is_err());
}

#[test]
fn other_replies_of_the_monitor() {
    let word = |command, text| word_reply(command, &check_reply(text).2);
    assert_eq!(word(CommandCode::Alloc, "00000708ff000000000080000f0018006460"), Ok(0x6064_0018));
    assert_eq!(word(CommandCode::Alloc, "00000709ff00000000008000100000000000"), Ok(0));
    assert_eq!(word(CommandCode::Count, "00000708ff000000000080001d00440000000f00000000000000"), Ok(68));
    assert_eq!(word(CommandCode::IpTag, "00000708ff00000000008000170001000000"), Ok(1));
    assert!(word(CommandCode::Alloc, "00000709ff000000000080000c00").is_err());

    let (_, _, payload) = check_reply("00000709ff000000000080001200f0fb1b07f0fb1b07");
    let space = SdramSpace::read(&payload).unwrap();
    assert_eq!(space.free_bytes.get(), 0x071B_FBF0);

    let (_, _, payload) =
        check_reply("00000709ff000000000080001800c0a8f0fe020000000001e6450000008000000000000000000000000000000000");
    let (entry, rest) = iptag::Entry::read(&payload).unwrap();
    assert!(entry.is_valid() && rest.is_empty());
    assert_eq!((entry.ip, entry.tx_port.get()), ([192, 168, 240, 254], 17894));
    assert_eq!(entry.to_string(), "tag to 192.168.240.254:17894 flags 0x8000 sent 0");

    let (_, _, payload) = check_reply("00000708ff00000000008000190009200808");
    let table = iptag::TableInfo::read(&payload).unwrap();
    assert_eq!((table.timeout, table.entry_bytes, table.pool, table.fixed), (9, 32, 8, 8));
    assert_eq!(TimeoutCode(table.timeout).milliseconds(), Some(2560));

    let codes = ["40000709ff130000000088001c00", "40000708ff000000070787001f00"].map(|text| check_reply(text).0);
    assert_eq!(codes, [ReturnCode::BadCore, ReturnCode::NoRoute]);
    assert!(codes.iter().all(|code| !code.is_retriable()) && ReturnCode::P2pBusy.is_retriable());

    let empty = [
        "00000709ff000000000080000800",
        "00000708ff000000000080000900",
        "00000709ff000000000080000c00",
        "00000709ff000000000080000e00",
        "00000709ff000000000080001a00",
        "00000708ff000000000080001b00",
        "00000709ff000000000080001e00",
    ];
    for text in empty {
        assert!(check_reply(text).2.is_empty());
    }
    let data = [
        ("00000709ff000000000080000a0001020304050607080000000000000000efbeaddeefbeadde", 24),
        ("00000708ff000000000080000b00020304", 3),
        ("00000708ff000000000080000d0012101159", 4),
        ("00000708ff00000000008000130001000000", 4),
        ("00000709ff00000000008000140018006460", 4),
        ("00000708ff00000000008000150001000000", 4),
        ("00000709ff00000000008000160001000000", 4),
    ];
    for (text, length) in data {
        assert_eq!(check_reply(text).2.len(), length);
    }
}

#[test]
fn versions_of_old_kernels_and_of_boards() {
    let mut old = hex("00 01 0000 0001 86 00 00000000");
    old.extend(b"SC&MP/SpiNNaker\0");
    assert_eq!(Version::parse(&old).unwrap().number, (1, 34, 0));
    let mut bmp = hex("00 00 0000 0001 ffff 00000000");
    bmp.extend(b"BC&MP/Spin5-BMP\x002.1.2\0");
    let version = Version::parse(&bmp).unwrap();
    assert_eq!((version.name, version.hardware, version.number), ("BC&MP", "Spin5-BMP", (2, 1, 2)));
    bmp.truncate(bmp.len() - 4);
    assert!(Version::parse(&bmp).is_err());
    assert!(Version::parse(&[0; 12]).is_ok(), "no text at all is a version 0");
}

#[test]
fn text_of_cores() {
    let body = hex("4000 0000 68690a");
    let tube = Tube::parse(&body).unwrap();
    assert_eq!(tube.to_string(), "text \"hi\\n\"");
    let mut buffer = [0xAA; 16];
    let length = tube.emit(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], &body[..]);
    assert!(Tube::parse(&hex("4100 0000")).is_err());
}

#[test]
fn what_does_not_fit_is_refused() {
    let request = |command| Request { seq: 0, command }.emit(&mut [0; 400]);
    let data = [0; 257];
    assert!(matches!(
        request(Command::Write { address: 0, unit: Unit::Byte, data: &data }),
        Err(WireError::TooLong { .. })
    ));
    let block = FloodBlock { links: 0, repeat: 0, id: 0, block: 0, address: 0, data: &data[..6] };
    assert!(request(Command::FloodFillData(block)).is_err());
    assert!(request(Command::FloodFillData(FloodBlock { data: &[], ..block })).is_err());
    let start = StartWord { app: AppId(0), flags: 0, cores: CoreMask(0) };
    let copy = |checksum| Command::ApplicationCopyRun { link: LinkId::East, checksum, length_bytes: 0, start };
    assert!(request(copy(1 << 29)).is_err() && request(copy(0)).is_ok());
    let target = Target { timeout: TimeoutCode(16), ..Target::to_sender(false) };
    assert!(request(Command::IpTag(iptag::Command::New(target))).is_err());
    assert!(matches!(
        emit_udp_reply(&sdp::Repr::request(sdp::Endpoint::HOST), ReturnCode::Ok, 0, &[0; 269], &mut [0; 400]),
        Err(WireError::TooLong { .. })
    ));
    // A write that announces more than there is.
    let body = hex("0300 0000 00002460 09000000 00000000 0102030405060708");
    assert!(matches!(Request::parse(&body), Err(WireError::Truncated { .. })));
    assert!(Request::parse(&hex("1c00 0000 09000000 00000000 00000000")).is_err(), "ALLOC op 9");
}

fn body(code: u16, seq: u16, args: [u32; 3], data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(code.to_le_bytes());
    body.extend(seq.to_le_bytes());
    body.extend(args.iter().flat_map(|a| a.to_le_bytes()));
    body.extend(data);
    body
}

proptest! {
    #[test]
    fn what_is_read_is_written_the_same(
        code in prop_oneof![9 => 0u16..65, 1 => any::<u16>()],
        seq in any::<u16>(),
        args in any::<[u32; 3]>(),
        small in proptest::array::uniform3(0u32..300),
        op in 0u32..10,
        data in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        // Wild, and such that operations and lengths are often valid.
        let [a, b, c] = args;
        let [_, length, third] = small;
        for args in [args, [a, length, third], [a & !0xFF | op, b, third], [op << 16 | a & 0xFF00_0007, b, c], small] {
            let body = body(code, seq, args, &data);
            let Ok(request) = Request::parse(&body) else { continue };
            prop_assert!(!request.to_string().contains('\n'));
            let mut buffer = [0; 400];
            match request.emit(&mut buffer) {
                Ok(written) => {
                    prop_assert_eq!(written, request.buffer_len());
                    prop_assert_eq!(Request::parse(&buffer[..written]), Ok(request));
                }
                Err(e) => prop_assert!(matches!(e, WireError::TooLong { .. } | WireError::Field { .. }), "{}", e),
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = Request::parse(&bytes).map(|r| r.to_string());
        let _ = Packet::new_checked(&bytes).map(|p| p.to_string());
        let _ = Version::parse(&bytes).map(|v| v.to_string());
        let _ = Tube::parse(&bytes).map(|t| t.to_string());
        if let Ok(info) = ChipInfo::parse(&bytes) {
            let mut buffer = [0; 64];
            let length = info.emit(&mut buffer).unwrap();
            prop_assert_eq!(ChipInfo::parse(&buffer[..length]), Ok(info));
        }
        if let Ok((entry, _)) = iptag::Entry::read(&bytes) {
            prop_assert!(!entry.to_string().contains('\n'));
        }
    }

    #[test]
    fn words_of_starts_and_signals(word in any::<u32>()) {
        prop_assert_eq!(StartWord::parse(word).word(), word);
        prop_assert_eq!(SignalWord::parse(word).word(), word & 0xFF_FFFF);
    }
}
