//! The timeline of a machine, read back.

mod common;
#[path = "common/program.rs"]
mod program;

use std::collections::BTreeMap;

use common::{MS, boot};
use program::counting;
use serde_json::Value;
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};

const ROOT: ChipXy = ChipXy::new(0, 0);

fn written(machine: &mut CycleMachine) -> (Value, u64) {
    let mut text = Vec::new();
    let size = machine.write_timeline(&mut text).expect("memory");
    let value: Value = serde_json::from_slice(&text).expect("JSON");
    let spans = value["traceEvents"].as_array().expect("events").iter().filter(|event| event["ph"] == "X").count();
    assert_eq!(spans, size.spans);
    (value, size.lost)
}

/// Process and thread.
type Track = (u64, u64);

/// Spans by track: start and end in microseconds, name.
fn tracks(value: &Value) -> BTreeMap<Track, Vec<(f64, f64, String)>> {
    let mut tracks: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut last = 0.0;
    for event in value["traceEvents"].as_array().expect("events").iter().filter(|event| event["ph"] == "X") {
        let number = |name: &str| event[name].as_f64().expect("a number");
        let (start, length) = (number("ts"), number("dur"));
        assert!(start >= last && length >= 0.0, "times grow: {event}");
        last = start;
        let track = (event["pid"].as_u64().expect("a chip"), event["tid"].as_u64().expect("a track"));
        let name = event["name"].as_str().expect("a name").to_string();
        tracks.entry(track).or_default().push((start, start + length, name));
    }
    tracks
}

#[test]
fn cores_transfers_and_links_are_on_their_tracks_one_after_the_other() {
    let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig::default());
    machine.set_timeline(Some(100_000));
    boot(&mut machine, &counting());
    let monitor = machine.physical(ROOT, 0).expect("elected");
    let begin_us = machine.now_ns() as f64 / 1e3;
    // A multicast packet that default routing drops, a nearest-neighbour packet to the east with a payload, and a transfer.
    let control = |word: u32| word.to_le_bytes();
    assert!(machine.alter(ROOT, monitor, 0x1000_0000, &control(0x0080_0000 | 7 << 24)));
    for (address, word) in [
        (0x1000_0004, 0x1234_5678),
        (0x1000_0008, 0xA000_0001),
        (0x3000_0004, 0xE500_0000),
        (0x3000_0008, 0x0040_1000),
        (0x3000_000C, 0x0180_0400),
    ] {
        assert!(machine.alter(ROOT, monitor, address, &control(word)), "{address:#x}");
    }
    machine.run_for(MS);
    let (value, lost) = written(&mut machine);
    assert_eq!(lost, 0);
    let tracks = tracks(&value);
    for spans in tracks.values() {
        // Nothing on a track begins before what came before it has ended (to a picosecond, as far as the numbers carry).
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0 + 2e-6), "{spans:?}");
    }
    let core = &tracks[&(0, u64::from(monitor))];
    assert_eq!(core.iter().map(|span| span.2.as_str()).collect::<Vec<_>>(), ["boot ROM", "running"]);
    assert!((core[1].1 - machine.now_ns() as f64 / 1e3).abs() < 1e-3, "until now");
    // 0x400 bytes at the rate of one engine: measurements.md has about 15 ns a word, and a set-up.
    let transfer = &tracks[&(0, 18 + u64::from(monitor))];
    assert_eq!((transfer.len(), transfer[0].2.as_str()), (1, "read"));
    let length_us = transfer[0].1 - transfer[0].0;
    assert!(transfer[0].0 >= begin_us - 1.0 && (2.0..6.0).contains(&length_us), "{length_us}");
    let names: Vec<&str> = value["traceEvents"]
        .as_array()
        .expect("events")
        .iter()
        .filter(|event| event["ph"] == "M")
        .filter_map(|event| event["args"]["name"].as_str())
        .collect();
    for name in ["chip 0,0", "chip 1,1", &format!("core {monitor} (physical, monitor)"), "DMA of core 3", "link E"] {
        assert!(names.contains(&name), "no `{name}` in {names:?}");
    }
    // The packet went by a link, or by several: all of the root's.
    let packets: Vec<&(f64, f64, String)> =
        (36..42).filter_map(|link| tracks.get(&(0, link))).flatten().filter(|span| span.0 >= begin_us).collect();
    assert!(packets.iter().any(|span| span.2 == "nearest neighbour"), "{tracks:?}");
}

#[test]
fn a_timeline_is_bounded_and_changes_nothing() {
    let run = |spans: Option<usize>| {
        let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig::default());
        machine.set_timeline(spans);
        boot(&mut machine, &counting());
        let written = spans.map(|_| written(&mut machine));
        (machine.trace_hash(), written)
    };
    let (plain, _) = run(None);
    let (small, written) = run(Some(40));
    let (value, _) = written.expect("asked for");
    assert_eq!(plain, small);
    // What is still going on is told whatever the bound.
    let cores = 4 * 18;
    let spans = tracks(&value).values().map(Vec::len).sum::<usize>();
    assert!(spans <= 40 + cores, "{spans}");
    // The monitor's time in the boot ROM, at least, has ended and does not fit.
    let (again, written) = run(Some(0));
    assert_eq!(plain, again);
    assert!(written.expect("asked for").1 > 0);
}
