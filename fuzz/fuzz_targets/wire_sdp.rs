//! Datagrams to and from a board: SDP, SCP, BMP, EIEIO, boot. What is read must be written such that it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spinnaker_wire::{bmp, boot, eieio, iptag, p2p, scp, sdp};

fuzz_target!(|data: &[u8]| {
    let mut buffer = [0; 4096];
    if let Ok(packet) = sdp::Packet::from_udp(data) {
        let _ = packet.to_string();
        scp_body(packet.body);
    }
    scp_body(data);
    if let Ok(message) = boot::Repr::parse(data) {
        let _ = message.to_string();
        if let Ok(length) = message.emit(&mut buffer) {
            assert_eq!(boot::Repr::parse(&buffer[..length]), Ok(message));
        }
    }
    if let Ok(packet) = eieio::Packet::parse(data) {
        let _ = packet.to_string();
        let length = packet.emit(&mut buffer).expect("the buffer holds any packet that fits into a datagram");
        assert_eq!(eieio::Packet::parse(&buffer[..length]), Ok(packet));
    }
    let _ = p2p::message_checksum(data);
});

fn scp_body(body: &[u8]) {
    let mut buffer = [0; 512];
    if let Ok(request) = scp::Request::parse(body) {
        let _ = request.to_string();
        if let Ok(length) = request.emit(&mut buffer) {
            assert_eq!(scp::Request::parse(&buffer[..length]), Ok(request));
        }
    }
    if let Ok(request) = bmp::Request::parse(body) {
        let _ = request.to_string();
        if let Ok(length) = request.emit(&mut buffer) {
            assert_eq!(bmp::Request::parse(&buffer[..length]), Ok(request));
        }
    }
    let Ok(packet) = scp::Packet::new_checked(body) else { return };
    let _ = packet.to_string();
    if let Ok(version) = scp::Version::parse(packet.payload) {
        let mut buffer = vec![0; packet.payload.len() + 64];
        let length = version.emit(&mut buffer).expect("texts are no longer than they were");
        assert_eq!(scp::Version::parse(&buffer[..length]).map(|v| v.number), Ok(version.number));
    }
    let _ = scp::ChipInfo::parse(packet.payload).map(|info| info.to_string());
    let _ = iptag::Entry::read(packet.payload).map(|(entry, _)| entry.to_string());
    let _ = bmp::BoardStatus::read(packet.payload).map(|status| status.to_string());
}
