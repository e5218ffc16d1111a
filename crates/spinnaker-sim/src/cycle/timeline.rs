//! A timeline of a machine in Chrome's trace format, which Perfetto and browsers show: a process for each chip, with a track for
//! each core, each DMA controller and each link.

use std::io::{self, Write};

use spinnaker_machine::{ChipXy, Link as Direction};

use super::CycleMachine;
use crate::chip::{CORES, Chip, Doing, Span, What};
use crate::network::PacketKind;

/// Numbers of tracks within a chip.
const DMA_TRACKS: usize = CORES;
const LINK_TRACKS: usize = 2 * CORES;

/// How much a timeline holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimelineSize {
    /// Spans in it.
    pub spans: usize,
    /// Spans that there was no room for, the last of their chips.
    pub lost: u64,
}

/// Picoseconds as microseconds, which the format counts in.
struct Us(u64);

impl std::fmt::Display for Us {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl CycleMachine {
    /// Begins to note what cores, DMA controllers and links do, at most so many spans for the whole machine (shared evenly among
    /// chips); or stops and forgets it.
    pub fn set_timeline(&mut self, spans_max: Option<usize>) {
        let share = spans_max.map(|spans| spans / self.chips.len().max(1));
        let now_ps = self.now_ps;
        for (chip, next_ps) in self.chips.iter_mut().zip(&mut self.next_ps) {
            if let Ok(chip) = chip.get_mut() {
                chip.rouse(now_ps);
                chip.watch_time(share, now_ps);
                *next_ps = chip.next_ps();
            }
        }
    }

    /// Writes the timeline so far: spans in order of their start, times from power on.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_timeline(&mut self, out: &mut impl Write) -> io::Result<TimelineSize> {
        let mut size = TimelineSize::default();
        let mut spans: Vec<(usize, Span)> = Vec::new();
        let mut separator = "";
        write!(out, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
        for (index, (chip, &xy)) in self.chips.iter_mut().zip(&self.places).enumerate() {
            let Ok(chip) = chip.get_mut() else { continue };
            let Some(timeline) = chip.probe.as_ref().and_then(|probe| probe.timeline.as_ref()) else { continue };
            size.lost += timeline.lost;
            spans.extend(timeline.spans(self.now_ps).into_iter().map(|span| (index, span)));
            write_names(out, &mut separator, index, xy, chip)?;
        }
        // A span that holds another comes before it.
        spans.sort_by_key(|&(index, span)| (span.start_ps, index, track(span.what), std::cmp::Reverse(span.end_ps)));
        for &(index, span) in &spans {
            write_span(out, &mut separator, index, span)?;
        }
        size.spans = spans.len();
        writeln!(out, "\n]}}")?;
        Ok(size)
    }
}

fn track(what: What) -> usize {
    match what {
        What::Core { core, .. } => usize::from(core),
        What::Dma { core, .. } => DMA_TRACKS + usize::from(core),
        What::Link { link, .. } => LINK_TRACKS + usize::from(link),
    }
}

fn write_names(out: &mut impl Write, separator: &mut &str, index: usize, xy: ChipXy, chip: &Chip) -> io::Result<()> {
    let mut name = |kind: &str, track: usize, name: &str| {
        let result = write!(
            out,
            "{separator}\n{{\"ph\":\"M\",\"name\":\"{kind}\",\"pid\":{index},\"tid\":{track},\"args\":{{\"name\":\"{name}\"}}}}"
        );
        *separator = ",";
        result
    };
    name("process_name", 0, &format!("chip {},{}", xy.x, xy.y))?;
    for core in 0..CORES {
        let role = if core == usize::from(chip.rom.monitor) { ", monitor" } else { "" };
        name("thread_name", core, &format!("core {core} (physical{role})"))?;
        name("thread_name", DMA_TRACKS + core, &format!("DMA of core {core}"))?;
    }
    for link in Direction::ALL {
        name("thread_name", LINK_TRACKS + link.index(), &format!("link {link}"))?;
    }
    Ok(())
}

fn write_span(out: &mut impl Write, separator: &mut &str, index: usize, span: Span) -> io::Result<()> {
    let Span { start_ps, end_ps, what } = span;
    write!(out, "{separator}\n{{\"ph\":\"X\",\"pid\":{index},\"tid\":{},", track(what))?;
    write!(out, "\"ts\":{},\"dur\":{},", Us(start_ps), Us(end_ps - start_ps))?;
    *separator = ",";
    match what {
        What::Core { doing, .. } => {
            let name = match doing {
                Doing::Rom => "boot ROM",
                Doing::Running => "running",
                Doing::Asleep => "asleep",
                Doing::Held => "held",
                Doing::Stopped => "stopped",
                Doing::Nothing => "off",
            };
            write!(out, "\"name\":\"{name}\"}}")
        }
        What::Dma { transfer, .. } => write!(
            out,
            "\"name\":\"{}\",\"args\":{{\"bytes\":{},\"system\":\"{:#010x}\",\"tcm\":\"{:#010x}\"}}}}",
            if transfer.to_system() { "write" } else { "read" },
            transfer.bytes(),
            transfer.system,
            transfer.tcm
        ),
        What::Link { packet, .. } => {
            let name = match packet.kind() {
                PacketKind::Multicast => "multicast",
                PacketKind::PointToPoint => "point to point",
                PacketKind::NearestNeighbour => "nearest neighbour",
                PacketKind::FixedRoute => "fixed route",
            };
            write!(out, "\"name\":\"{name}\",\"args\":{{\"key\":\"{:#010x}\"", packet.key)?;
            if let Some(payload) = packet.payload_word() {
                write!(out, ",\"payload\":\"{payload:#010x}\"")?;
            }
            write!(out, "}}}}")
        }
    }
}
