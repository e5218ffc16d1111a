//! What a monitor's work takes.

use spinnaker_wire::scp::Command;

/// Reading a message's header and acting on it, ns. With [`BYTE_NS`] the root's VER takes about the 14 us of SC&MP 4.0.0 on a
/// functional model, wires apart.
const MESSAGE_NS: u64 = 8_000;
/// Copying a byte of request or reply: 272-byte messages stream out of an Ethernet chip at 5.7 MB/s (SpiNN-misc-Tests,
/// sdp_to_host).
const BYTE_NS: u64 = 130;
/// A message to another chip by point-to-point packets, beside its bytes: 115 us for VER of a neighbour and 320 us for 256 bytes
/// read there, on a functional model; 1.1 MB/s measured for 272-byte messages (SpiNN-misc-Tests).
const P2P_MESSAGE_NS: u64 = 22_400;
const P2P_BYTE_NS: u64 = 770;
/// A hop of its packets.
const P2P_HOP_NS: u64 = 500;
/// Passing a message on to Ethernet.
const PASS_ON_NS: u64 = 5_000;
/// A word of a fill.
const FILL_WORD_NS: u64 = 25;
/// A peek or poke of a neighbour (one word; estimate: about 1 us for the packets and as much for the program).
const PEEK_NS: u64 = 2_000;
/// COUNT answers so much later (scamp-cmd.c).
pub(super) const COUNT_NS: u64 = 10_000_000;

/// A frame on the wire at a rate: headers, check sum, preamble and gap beside the datagram's bytes.
pub(super) fn wire_ns(datagram_bytes: usize, mbps: f64) -> u64 {
    let bytes = (datagram_bytes + 42).max(60) + 24;
    (bytes as f64 * 8_000.0 / mbps.max(1e-3)) as u64
}

/// A message of so many bytes (header and body) to a chip so many hops away.
pub(super) fn p2p_ns(bytes: usize, hops: u32) -> u64 {
    P2P_MESSAGE_NS + P2P_BYTE_NS * bytes as u64 + P2P_HOP_NS * u64::from(hops)
}

/// A message that goes out by Ethernet.
pub(super) fn pass_on_ns() -> u64 {
    PASS_ON_NS
}

/// A request with a body of so many bytes, on a chip that has so many working links.
pub(super) fn request_ns(body_bytes: usize, command: Option<&Command<'_>>, links: u8) -> u64 {
    let words = |bytes: u32| u64::from(bytes.div_ceil(4));
    let (reply_bytes, more_ns) = match command {
        Some(Command::Read { length_bytes, .. }) => ((*length_bytes).min(256), 0),
        Some(Command::Fill { length_bytes, .. }) => (0, words(*length_bytes) * FILL_WORD_NS),
        Some(Command::LinkRead { length_bytes, .. }) => {
            ((*length_bytes).min(256), words((*length_bytes).min(256)) * PEEK_NS)
        }
        Some(Command::LinkWrite { data, .. }) => (0, words(data.len() as u32) * PEEK_NS),
        Some(Command::ApplicationCopyRun { length_bytes, .. }) => (0, words((*length_bytes).min(1 << 18)) * PEEK_NS),
        Some(Command::NearestNeighbour { control, .. }) => (4, flood_ns(1, control.0 as u8, control.links() & links)),
        Some(Command::FloodFillData(block)) => {
            (4, flood_ns(block.data.len() as u64 / 4 + 2, block.repeat, block.links & links))
        }
        Some(_) => (34, 0),
        None => (4, 0),
    };
    MESSAGE_NS + BYTE_NS * (body_bytes as u64 + u64::from(reply_bytes)) + more_ns
}

/// Flooded packets, with the pauses and repeats that the sender asks for: bits 2:0 repeats, bits 7:3 the pause in units of 8 us.
fn flood_ns(packets: u64, repeat: u8, links: u8) -> u64 {
    let each_us = u64::from(repeat & 7) + 1;
    packets * each_us * u64::from(repeat & 0xF8) * 1_000 * u64::from(links.count_ones())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published rates (measurements reference, section 7), within a quarter.
    #[test]
    fn rates_are_those_that_were_measured() {
        let near = |value: f64, wanted: f64| assert!((value / wanted - 1.0).abs() < 0.25, "{value}, not {wanted}");
        // 256 bytes with their headers are 348 byte times.
        assert_eq!(wire_ns(282, 100.0), 27_840);
        let read = Command::Read { address: 0, length_bytes: 256, unit: spinnaker_wire::Unit::Word };
        near(256e3 / request_ns(16, Some(&read), 6) as f64, 5.7);
        near(272e3 / p2p_ns(282, 1) as f64, 1.1);
        // Requests of 26 bytes and replies of 44: host to host without wires.
        near((p2p_ns(26, 1) + request_ns(16, Some(&Command::Version), 6) + p2p_ns(44, 1)) as f64, 115e3);
    }
}
