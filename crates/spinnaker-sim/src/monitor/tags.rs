//! IP tags of a chip (protocols of SC&MP 4.0.0, "IP tags"): eight for users, eight for replies to requests without a tag.

use std::net::{Ipv4Addr, SocketAddrV4};

use spinnaker_wire::iptag::{Command, Entry, TAG_NONE, TAGS, TAGS_FIXED, TableInfo, Target, TimeoutCode};
use spinnaker_wire::{ChipAddress, CorePort};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

/// A tick of the monitor, in which time-outs are counted.
const TICK_NS: u64 = 10_000_000;
/// Entries that fit a reply.
const ENTRIES_MAX: u32 = 8;

#[derive(Debug, Clone, Copy)]
struct Tag {
    host: SocketAddrV4,
    flags: u16,
    timeout: TimeoutCode,
    /// When it goes away by itself, ns.
    ends_ns: Option<u64>,
    count: u32,
    /// Port of the board, and where its datagrams go (reverse tags).
    receive: u16,
    chip: ChipAddress,
    core_port: CorePort,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Tags {
    tags: [Option<Tag>; TAGS as usize],
    transient: TimeoutCode,
}

/// What goes out by a tag.
pub(super) struct WayOut {
    pub host: SocketAddrV4,
    /// Port of the board that it comes from; `None`: that of the monitor.
    pub from_port: Option<u16>,
    /// Without pads and header.
    pub strip: bool,
}

/// Where a datagram to a reverse tag goes.
pub(super) struct WayIn {
    pub tag: u8,
    pub chip: ChipAddress,
    pub core_port: CorePort,
}

impl Tags {
    pub fn new() -> Self {
        Self { tags: [None; TAGS as usize], transient: TimeoutCode::TRANSIENT_DEFAULT }
    }

    fn tidy(&mut self, now_ns: u64) {
        for tag in &mut self.tags {
            if tag.is_some_and(|tag| tag.ends_ns.is_some_and(|ends_ns| ends_ns <= now_ns)) {
                *tag = None;
            }
        }
    }

    /// A tag for the reply to a request that came without one; `None`: all are in use.
    pub fn take_transient(&mut self, host: SocketAddrV4, now_ns: u64) -> Option<u8> {
        self.tidy(now_ns);
        let free = (TAGS_FIXED..TAGS).find(|tag| self.tags[usize::from(*tag)].is_none())?;
        let target = Target { timeout: self.transient, ..Target::to_host(host.ip().octets(), host.port(), false) };
        self.set(free, target, host, Entry::FLAG_TRANSIENT, now_ns);
        Some(free)
    }

    /// Whether a tag is in use.
    pub fn is_set(&mut self, tag: u8, now_ns: u64) -> bool {
        self.tidy(now_ns);
        self.tags.get(usize::from(tag)).is_some_and(Option::is_some)
    }

    /// A message goes out by a tag; one for a single reply is gone then.
    pub fn way_out(&mut self, tag: u8, now_ns: u64) -> Option<WayOut> {
        self.tidy(now_ns);
        let place = self.tags.get_mut(usize::from(tag))?;
        let found = place.as_mut()?;
        found.count = found.count.wrapping_add(1);
        let reverse = found.flags & Entry::FLAG_REVERSE != 0;
        let way = WayOut {
            host: found.host,
            from_port: reverse.then_some(found.receive),
            strip: found.flags & Entry::FLAG_STRIP != 0,
        };
        found.ends_ns = ends_ns(found.timeout, now_ns);
        if found.flags & Entry::FLAG_TRANSIENT != 0 {
            *place = None;
        }
        Some(way)
    }

    /// The reverse tag of a port of the board. Whoever sends by it is answered by it.
    pub fn way_in(&mut self, port: u16, from: SocketAddrV4, now_ns: u64) -> Option<WayIn> {
        self.tidy(now_ns);
        let fixed = self.tags.iter_mut().take(TAGS_FIXED.into());
        for (number, tag) in (0..).zip(fixed) {
            if let Some(tag) = tag
                && tag.flags & Entry::FLAG_REVERSE != 0
                && tag.receive == port
            {
                tag.host = from;
                return Some(WayIn { tag: number, chip: tag.chip, core_port: tag.core_port });
            }
        }
        None
    }

    fn set(&mut self, tag: u8, target: Target, sender: SocketAddrV4, more: u16, now_ns: u64) {
        let mut flags = Entry::FLAG_VALID | more | u16::from(target.timeout.0);
        flags |= if target.strip { Entry::FLAG_STRIP } else { 0 };
        flags |= if target.reverse { Entry::FLAG_REVERSE | Entry::FLAG_STRIP } else { 0 };
        flags |= if target.use_sender { Entry::FLAG_SENDER } else { 0 };
        let ip = if target.ip == [0; 4] || target.use_sender { *sender.ip() } else { Ipv4Addr::from(target.ip) };
        let port = match (target.use_sender, target.reverse) {
            (true, _) => sender.port(),
            (false, true) => 0,
            (false, false) => target.port,
        };
        if let Some(place) = self.tags.get_mut(usize::from(tag)) {
            *place = Some(Tag {
                host: SocketAddrV4::new(ip, port),
                flags,
                timeout: target.timeout,
                ends_ns: ends_ns(target.timeout, now_ns),
                count: 0,
                receive: if target.reverse { target.port } else { 0 },
                chip: target.chip,
                core_port: target.core_port,
            });
        }
    }

    fn entry(&self, tag: u8, now_ns: u64) -> Entry {
        let Some(tag) = self.tags.get(usize::from(tag)).copied().flatten() else {
            return Entry {
                ip: [0; 4],
                mac: [0; 6],
                tx_port: U16::ZERO,
                timeout_ticks: U16::ZERO,
                flags: U16::ZERO,
                count: U32::ZERO,
                rx_port: U16::ZERO,
                dest_addr: U16::ZERO,
                dest_port: 0,
                pad: [0; 7],
            };
        };
        let [a, b, c, d] = tag.host.ip().octets();
        let left = tag.ends_ns.map_or(0, |ends_ns| ends_ns.saturating_sub(now_ns).div_ceil(TICK_NS));
        Entry {
            ip: [a, b, c, d],
            mac: [0x02, 0x00, a, b, c, d],
            tx_port: U16::new(tag.host.port()),
            timeout_ticks: U16::new(u16::try_from(left).unwrap_or(u16::MAX)),
            flags: U16::new(tag.flags),
            count: U32::new(tag.count),
            rx_port: U16::new(tag.receive),
            dest_addr: U16::new(tag.chip.0),
            dest_port: tag.core_port.0,
            pad: [0; 7],
        }
    }

    /// Carries out a command of somebody; the payload of the reply.
    pub fn execute(&mut self, command: Command, sender: SocketAddrV4, now_ns: u64) -> Vec<u8> {
        self.tidy(now_ns);
        match command {
            Command::New(target) => {
                let free = (TAGS_FIXED..TAGS).find(|tag| self.tags[usize::from(*tag)].is_none());
                if let Some(tag) = free {
                    self.set(tag, target, sender, 0, now_ns);
                }
                free.map_or(TAG_NONE, u32::from).to_le_bytes().to_vec()
            }
            Command::Set { tag, target } => {
                self.set(tag, target, sender, 0, now_ns);
                u32::from(tag).to_le_bytes().to_vec()
            }
            Command::Get { tag, count } => {
                let tags = (tag..TAGS).take(count.min(ENTRIES_MAX) as usize);
                tags.flat_map(|tag| self.entry(tag, now_ns).as_bytes().to_vec()).collect()
            }
            Command::Clear { tag } => {
                if let Some(place) = self.tags.get_mut(usize::from(tag)) {
                    *place = None;
                }
                Vec::new()
            }
            Command::TransientTimeout { timeout } => {
                self.transient = timeout.unwrap_or(self.transient);
                let entry_bytes = size_of::<Entry>() as u8;
                let (timeout, pool) = (self.transient.0, TAGS - TAGS_FIXED);
                TableInfo { timeout, entry_bytes, pool, fixed: TAGS_FIXED }.as_bytes().to_vec()
            }
        }
    }
}

fn ends_ns(timeout: TimeoutCode, now_ns: u64) -> Option<u64> {
    timeout.milliseconds().map(|ms| now_ns + u64::from(ms) * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 240, 254), 12_345);

    /// Replies of SC&MP 4.0.0 (protocols reference, section 20.1), but for the Ethernet address.
    #[test]
    fn entries_read_as_the_monitors_do() {
        let mut tags = Tags::new();
        let target = Target::to_host([0; 4], 17_894, false);
        assert_eq!(tags.execute(Command::Set { tag: 1, target }, HOST, 0), [1, 0, 0, 0]);
        let entry = tags.execute(Command::Get { tag: 1, count: 1 }, HOST, 0);
        assert_eq!(entry[..4], [0xC0, 0xA8, 0xF0, 0xFE]);
        assert_eq!(entry[10..16], [0xE6, 0x45, 0, 0, 0, 0x80]);
        assert!(entry[16..].iter().all(|byte| *byte == 0) && entry.len() == 32);
        assert_eq!(tags.execute(Command::TransientTimeout { timeout: None }, HOST, 0), [9, 0x20, 8, 8]);
    }

    #[test]
    fn eight_replies_may_be_under_way_and_old_ones_are_forgotten() {
        let mut tags = Tags::new();
        let taken: Vec<_> = (0..8).map(|_| tags.take_transient(HOST, 0)).collect();
        assert_eq!(taken, (8..16).map(Some).collect::<Vec<_>>());
        assert_eq!(tags.take_transient(HOST, 2_559_000_000), None);
        assert!(tags.way_out(9, 0).is_some_and(|way| way.host == HOST && !way.strip));
        assert!(tags.way_out(9, 0).is_none(), "once only");
        assert_eq!(tags.take_transient(HOST, 0), Some(9));
        assert_eq!(tags.take_transient(HOST, 2_560_000_000), Some(8));
    }

    #[test]
    fn a_reverse_tag_answers_who_sent_last() {
        let mut tags = Tags::new();
        let target = Target::reverse(12_000, ChipAddress::new(1, 0), CorePort::new(3, 2));
        tags.execute(Command::Set { tag: 4, target }, HOST, 0);
        let way = tags.way_in(12_000, HOST, 5).expect("a tag");
        assert_eq!((way.tag, way.chip, way.core_port), (4, ChipAddress::new(1, 0), CorePort::new(3, 2)));
        assert!(tags.way_in(12_001, HOST, 5).is_none());
        let way = tags.way_out(4, 9).expect("a tag");
        assert_eq!((way.host, way.from_port, way.strip), (HOST, Some(12_000), true));
        tags.execute(Command::Clear { tag: 4 }, HOST, 0);
        assert!(tags.way_in(12_000, HOST, 5).is_none());
    }
}
