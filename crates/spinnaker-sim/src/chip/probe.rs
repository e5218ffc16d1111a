//! What a chip notes for whoever watches it: packets and DMA transfers that break, and a timeline. A chip that nobody watches
//! has none of it and pays for a look at an empty pointer.

use super::dma::Transfer;
use super::system::CORES;
use super::{Activity, Chip, Core};
use crate::network::{Packet, PacketKind};

/// Events of a kind that a watched chip keeps for a caller who does not take them.
const HITS_MAX: usize = 1024;

/// A packet or a DMA transfer that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// A router has taken a multicast packet.
    Packet {
        /// Machine time, ns.
        time_ns: u64,
        /// Its routing key.
        key: u32,
        /// Its payload, where it has one.
        payload: Option<u32>,
    },
    /// A core's DMA controller has begun a transfer.
    Dma {
        /// Machine time, ns.
        time_ns: u64,
        /// The core's physical number.
        core: u8,
        /// First byte on the system side.
        system: u32,
        /// First byte in the core's memories.
        tcm: u32,
        /// Bytes that it moves.
        bytes: u32,
        /// From the core's memory to the system side, or the other way.
        to_system: bool,
    },
}

impl std::fmt::Display for Hit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Packet { key, payload: Some(payload), .. } => {
                write!(f, "break: packet, key {key:#010x}, payload {payload:#010x}")
            }
            Self::Packet { key, payload: None, .. } => write!(f, "break: packet, key {key:#010x}"),
            Self::Dma { core, system, tcm, bytes, to_system, .. } => {
                let (from, to) = if to_system { (tcm, system) } else { (system, tcm) };
                write!(f, "break: DMA of physical core {core}, {bytes} bytes from {from:#010x} to {to:#010x}")
            }
        }
    }
}

/// What a core is doing, for the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Rom,
    Running,
    Asleep,
    Held,
    Stopped,
    Nothing,
}

impl Doing {
    pub fn of(core: &Core) -> Self {
        match core.activity {
            Activity::Broken => Self::Nothing,
            _ if core.held => Self::Held,
            _ if core.stopped => Self::Stopped,
            Activity::Rom => Self::Rom,
            Activity::Running => Self::Running,
            Activity::Asleep => Self::Asleep,
        }
    }
}

/// Something that lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Core { core: u8, doing: Doing },
    Dma { core: u8, transfer: Transfer },
    Link { link: u8, packet: Packet },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub start_ps: u64,
    pub end_ps: u64,
    pub what: What,
}

/// What the parts of a chip did, and when.
pub(crate) struct Timeline {
    spans: Vec<Span>,
    spans_max: usize,
    /// Spans that did not fit.
    pub lost: u64,
    /// What each core does now, and since when.
    cores: [(Doing, u64); CORES],
    dma: [Option<(Transfer, u64)>; CORES],
}

impl Timeline {
    fn new(spans_max: usize, cores: &[Core], now_ps: u64) -> Self {
        let doing = std::array::from_fn(|core| (cores.get(core).map_or(Doing::Nothing, Doing::of), now_ps));
        Self { spans: Vec::new(), spans_max, lost: 0, cores: doing, dma: [None; CORES] }
    }

    fn add(&mut self, start_ps: u64, end_ps: u64, what: What) {
        if self.spans.len() < self.spans_max {
            self.spans.push(Span { start_ps, end_ps: end_ps.max(start_ps), what });
        } else {
            self.lost += 1;
        }
    }

    fn core(&mut self, core: usize, doing: Doing, now_ps: u64) {
        let (before, since_ps) = self.cores[core];
        if before == doing {
            return;
        }
        // A core that overran the event that changes it goes over from where it is.
        let now_ps = now_ps.max(since_ps);
        if before != Doing::Nothing && now_ps > since_ps {
            self.add(since_ps, now_ps, What::Core { core: core as u8, doing: before });
        }
        self.cores[core] = (doing, now_ps);
    }

    /// All spans so far, with what is still going on up to now.
    pub fn spans(&self, now_ps: u64) -> Vec<Span> {
        let mut spans = self.spans.clone();
        let open =
            (0..).zip(&self.cores).filter(|(_, (doing, since_ps))| *doing != Doing::Nothing && *since_ps < now_ps);
        spans.extend(open.map(|(core, &(doing, start_ps))| Span {
            start_ps,
            end_ps: now_ps,
            what: What::Core { core, doing },
        }));
        spans
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Probe {
    /// Keys and masks of multicast packets that break.
    pub packets: Vec<(u32, u32)>,
    /// Bit per core whose DMA transfers break.
    pub dma: u32,
    /// What breaks stops the chip.
    pub halts: bool,
    pub hits: Vec<Hit>,
    pub timeline: Option<Timeline>,
}

impl Probe {
    fn is_idle(&self) -> bool {
        self.packets.is_empty() && self.dma == 0 && self.timeline.is_none() && self.hits.is_empty()
    }
}

impl Chip {
    /// Changes what is watched.
    pub fn watch(&mut self, change: impl FnOnce(&mut Probe)) {
        let probe = self.probe.get_or_insert_default();
        change(probe);
        if probe.is_idle() {
            self.probe = None;
        }
    }

    /// Begins a timeline of at most so many spans, or ends it.
    pub fn watch_time(&mut self, spans_max: Option<usize>, now_ps: u64) {
        let timeline = spans_max.map(|spans| Timeline::new(spans, &self.cores, now_ps));
        self.watch(|probe| probe.timeline = timeline);
    }

    fn hit(&mut self, hit: Hit, now_ps: u64) {
        self.log(now_ps, hit.to_string());
        let Some(probe) = &mut self.probe else { return };
        if probe.halts {
            self.stops += 1;
            if probe.hits.len() < HITS_MAX {
                probe.hits.push(hit);
            }
        }
    }

    /// The router has taken a packet.
    pub(super) fn watch_packet(&mut self, packet: Packet, now_ps: u64) {
        let Some(probe) = &self.probe else { return };
        let wanted =
            packet.kind() == PacketKind::Multicast && probe.packets.iter().any(|&(key, mask)| packet.key & mask == key);
        if wanted {
            let payload = packet.payload_word();
            self.hit(Hit::Packet { time_ns: now_ps / 1000, key: packet.key, payload }, now_ps);
        }
    }

    /// A link is busy with a packet.
    pub(super) fn watch_link(&mut self, link: usize, packet: Packet, end_ps: u64) {
        let Some(timeline) = self.probe.as_mut().and_then(|probe| probe.timeline.as_mut()) else { return };
        let output = &self.noc.links[link];
        let start_ps = end_ps - if packet.long() { output.long_ps } else { output.short_ps };
        timeline.add(start_ps, end_ps, What::Link { link: link as u8, packet });
    }

    /// A transfer begins.
    pub(super) fn watch_dma_start(&mut self, core: usize, transfer: Transfer, now_ps: u64) {
        let Some(probe) = &mut self.probe else { return };
        if let Some(timeline) = &mut probe.timeline {
            timeline.dma[core] = Some((transfer, now_ps));
        }
        if probe.dma >> core & 1 != 0 {
            let hit = Hit::Dma {
                time_ns: now_ps / 1000,
                core: core as u8,
                system: transfer.system,
                tcm: transfer.tcm,
                bytes: transfer.bytes(),
                to_system: transfer.to_system(),
            };
            self.hit(hit, now_ps);
        }
    }

    /// A core's transfer ends.
    pub(super) fn watch_dma_end(&mut self, core: usize, now_ps: u64) {
        let Some(timeline) = self.probe.as_mut().and_then(|probe| probe.timeline.as_mut()) else { return };
        if let Some((transfer, start_ps)) = timeline.dma[core].take() {
            timeline.add(start_ps, now_ps, What::Dma { core: core as u8, transfer });
        }
    }

    /// A core may do something else from now on.
    pub(super) fn watch_core(&mut self, core: usize, now_ps: u64) {
        if let Some(timeline) = self.probe.as_mut().and_then(|probe| probe.timeline.as_mut()) {
            timeline.core(core, Doing::of(&self.cores[core]), now_ps);
        }
    }
}
