use spidnn_core::program::barrier;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use spinnaker_machine::{ChipXy, Link, Machine, RandomFaults, Route};

use super::keys::{CHANNEL_MASK, ChannelKind, KeyParts, LOW_MASK, key_base};
use super::minimise::{Region, first_difference, intersect, minimise};
use super::*;

fn at(x: u8, y: u8) -> ChipXy {
    ChipXy::new(x, y)
}

/// Sends one packet through the tables as routers do; which cores get it, in order of arrival.
fn send(machine: &Machine, tables: &Tables, source: ChipXy, key: u32) -> Vec<(ChipXy, u8)> {
    let mut delivered = Vec::new();
    let mut queue: VecDeque<(ChipXy, Option<Link>)> = VecDeque::from([(source, None)]);
    let mut visits = 0;
    while let Some((chip, arrival)) = queue.pop_front() {
        visits += 1;
        assert!(visits <= machine.chips.len(), "packet {key:08x} from {source} goes round in circles");
        let entry = tables.tables.get(&chip).and_then(|table| table.iter().find(|entry| entry.matches(key)));
        let route = match (entry, arrival) {
            (Some(entry), _) => entry.route,
            (None, Some(link)) => Route::NONE.with_link(link.opposite()),
            (None, None) => panic!("packet {key:08x} is dropped at its source {source}"),
        };
        delivered.extend(route.cores().map(|core| (chip, core)));
        for link in route.links() {
            let to = machine.neighbour(chip, link);
            let to = to.unwrap_or_else(|| panic!("packet {key:08x} leaves {chip} by {link}, which leads nowhere"));
            queue.push_back((to, Some(link.opposite())));
        }
    }
    delivered
}

/// Compiles the nets of a whole machine and follows every channel of every core; returns the tables and the tree.
fn check_machine(machine: &Machine) -> (Tables, ReplicaTree) {
    let cores: BTreeMap<ChipXy, Vec<u8>> = machine
        .chips
        .iter()
        .filter(|(_, chip)| !chip.cores.is_empty())
        .map(|(&xy, chip)| (xy, chip.cores.clone()))
        .collect();
    let used: Vec<ChipXy> = cores.keys().copied().collect();
    let tree = ReplicaTree::build(machine, &used, None).expect("a tree");
    assert_eq!(tree.chips(), used, "fail_random leaves what hangs together");
    let slots = cores.values().map(Vec::len).min().expect("chips");
    let nets = nets_for(&tree, &cores, slots).expect("nets");
    let tables = route(machine, &nets).expect("tables");
    assert_eq!(tables, route(machine, &nets).expect("tables"), "same nets, same tables");
    // Tables look at the bits above the lowest 12 only, so one key of a channel stands for all.
    assert!(tables.tables.values().flatten().all(|entry| entry.mask & LOW_MASK == 0));
    let mut expected_channels = 0;
    for (index, (&chip, list)) in cores.iter().enumerate() {
        for (slot, &core) in list.iter().enumerate() {
            for kind in ChannelKind::ALL {
                let peers: Vec<ChipXy> = match kind {
                    ChannelKind::UpData | ChannelKind::UpControl => tree.parent(chip).into_iter().collect(),
                    ChannelKind::DownData | ChannelKind::DownControl => tree.children(chip).to_vec(),
                    ChannelKind::BarrierArrive | ChannelKind::BarrierRelease => vec![chip],
                };
                let mut expected: Vec<(ChipXy, u8)> = match kind {
                    ChannelKind::BarrierArrive
                        if barrier::gathered(slot as u32, list.len() as u32).count_ones() > 1 =>
                    {
                        vec![(chip, core)]
                    }
                    ChannelKind::BarrierArrive => continue,
                    ChannelKind::BarrierRelease if slot == 0 => list.iter().map(|&core| (chip, core)).collect(),
                    ChannelKind::BarrierRelease => continue,
                    _ if slot >= slots || peers.is_empty() => continue,
                    _ => peers.iter().map(|&peer| (peer, cores[&peer][slot])).collect(),
                };
                let key = key_base(index, core, kind).expect("key") | 0x5A5;
                let mut delivered = send(machine, &tables, chip, key);
                delivered.sort_unstable();
                expected.sort_unstable();
                assert_eq!(delivered, expected, "{chip} core {core} {kind:?}");
                expected_channels += 1;
            }
        }
    }
    let in_nets: usize = nets
        .iter()
        .map(|net| {
            let channels = cores[&net.source].iter().flat_map(|&core| {
                ChannelKind::ALL
                    .map(|kind| key_base(tree.chip_index(net.source).expect("used"), core, kind).expect("key"))
            });
            channels.filter(|key| key & net.mask == net.key).count()
        })
        .sum();
    assert_eq!(in_nets, expected_channels, "no channel is left unchecked");
    (tables, tree)
}

#[test]
fn every_packet_arrives_once_and_nowhere_else() {
    for (machine, entries_max) in
        [(Machine::spin3(), 80), (Machine::spin5(), 150), (Machine::boards(3).expect("three"), 150)]
    {
        let (tables, _) = check_machine(&machine);
        let (after, before) = tables.entries_max();
        println!("{} chips: {after} of {before}, total {:?}", machine.chips.len(), tables.entries_total());
        assert!(after < before && after <= entries_max, "{after} of {before}");
    }
}

#[test]
fn every_packet_arrives_around_dead_parts() {
    for seed in 0..50 {
        for mut machine in [Machine::spin5(), Machine::boards(3).expect("three")] {
            machine.fail_random(RandomFaults { chips: 5, cores: 40, links: 10 }, seed);
            check_machine(&machine);
        }
        let mut machine = Machine::spin3();
        machine.fail_random(RandomFaults { chips: (seed % 3) as usize, cores: 20, links: 1 }, seed);
        check_machine(&machine);
    }
}

#[test]
fn packets_pass_chips_without_cores() {
    let mut machine = Machine::spin5();
    for chip in [at(3, 3), at(4, 4), at(0, 1), at(1, 1)] {
        for core in 1..=17 {
            let _ = machine.kill_core(chip, core);
        }
    }
    for link in [Link::E, Link::N] {
        let _ = machine.kill_link(at(0, 0), link);
    }
    // 0,0 is left with 1,1 as its only neighbour, which has no cores.
    let (_, tree) = check_machine(&machine);
    assert!(tree.parent(at(0, 0)).is_some() && tree.chip_index(at(1, 1)).is_none());
}

fn net(source: ChipXy, key: u32, mask: u32, targets: &[(ChipXy, u8)]) -> Net {
    Net { source, key, mask, targets: targets.iter().map(|&(chip, core)| (chip, CoreTarget::one(core))).collect() }
}

#[test]
fn far_targets_share_their_way() {
    let machine = Machine::boards(3).expect("three");
    let source = at(0, 0);
    let targets: Vec<(ChipXy, u8)> = machine.chips.keys().map(|&chip| (chip, 3)).collect();
    let tables = route(&machine, &[net(source, 0x7000, CHANNEL_MASK, &targets)]).expect("tables");
    let mut delivered = send(&machine, &tables, source, 0x7123);
    delivered.sort_unstable();
    assert_eq!(delivered, targets);
    // Straight on, and around a dead link.
    let mut machine = Machine::rectangle(6, 2).expect("a row");
    let one = [net(source, 0x7000, CHANNEL_MASK, &[(at(5, 0), 1)])];
    assert_eq!(route(&machine, &one).expect("tables").entries_total(), (2, 6));
    machine.kill_link(at(2, 0), Link::E).expect("a link");
    let tables = route(&machine, &one).expect("tables");
    assert_eq!(send(&machine, &tables, source, 0x7000), [(at(5, 0), 1)]);
    assert!(tables.entries_total().1 <= 7);
}

#[test]
fn what_cannot_be_routed_is_named() {
    let mut machine = Machine::rectangle(3, 1).expect("a row");
    let (a, b) = (at(0, 0), at(2, 0));
    let check = |machine: &Machine, nets: &[Net]| route(machine, nets).expect_err("must fail");
    assert!(matches!(check(&machine, &[net(a, 1, 0xF0, &[(b, 1)])]), RouteError::Net { key: 1, .. }));
    assert!(matches!(check(&machine, &[net(a, 0, 0xF0, &[])]), RouteError::Net { .. }));
    assert_eq!(check(&machine, &[net(a, 0, 0xF0, &[(at(9, 9), 1)])]), RouteError::NoChip(at(9, 9)));
    assert_eq!(check(&machine, &[net(at(9, 9), 0, 0xF0, &[(b, 1)])]), RouteError::NoChip(at(9, 9)));
    for (key, mask) in [(0x10, 0xF0), (0x18, 0xFF), (0, 0)] {
        let error = check(&machine, &[net(a, 0x10, 0xF0, &[(b, 1)]), net(b, key, mask, &[(a, 1)])]);
        assert!(matches!(error, RouteError::Overlap(..)), "{error}");
        assert!(error.to_string().contains("chip 0,0") && error.to_string().contains("chip 2,0"), "{error}");
    }
    machine.kill_core(b, 4).expect("a core");
    assert_eq!(check(&machine, &[net(a, 0, 0xF0, &[(b, 4)])]), RouteError::NoCore(b, 4));
    machine.kill_link(a, Link::E).expect("a link");
    assert_eq!(check(&machine, &[net(a, 0, 0xF0, &[(b, 1)])]), RouteError::Unreachable { from: a, to: b });
}

#[test]
fn a_full_table_is_refused_with_its_length() {
    // Neighbouring keys go to different sets of cores, and every set is used once: nothing merges.
    let machine = Machine::rectangle(1, 1).expect("a chip");
    let nets = |count: u32| -> Vec<Net> {
        let set = |number: u32| (1..=17).filter(|core| (number + 1) >> (core - 1) & 1 == 1).collect();
        let net = |number| Net {
            source: at(0, 0),
            key: number << 12,
            mask: CHANNEL_MASK,
            targets: vec![(at(0, 0), set(number))],
        };
        (0..count).map(net).collect()
    };
    assert_eq!(route(&machine, &nets(1023)).expect("fits").entries_max(), (1023, 1023));
    assert_eq!(route(&machine, &nets(1024)), Err(RouteError::TableFull { chip: at(0, 0), entries: 1024 }));
}

fn region(key: u32, mask: u32, link: Link, by_default: bool) -> Region {
    Region { key, mask, route: Route::NONE.with_link(link), by_default }
}

#[test]
fn order_saves_entries_and_default_regions_stay_free() {
    // All of 16 keys but one go north: two entries, the exception first.
    let but_one = |by_default| -> Vec<Region> {
        let way = |key| if key == 6 { region(key, !0, Link::E, by_default) } else { region(key, !0, Link::N, false) };
        (0..16).map(way).collect()
    };
    let table: Vec<String> = minimise(&but_one(false)).iter().map(ToString::to_string).collect();
    assert_eq!(table, ["00000006/ffffffff -> E", "00000000/fffffff0 -> N"]);
    // By default routing the exception needs no entry, but then the others need four: an entry is worth keeping.
    assert_eq!(minimise(&but_one(true)).len(), 2);
    // One that nobody grows over goes.
    assert_eq!(minimise(&[region(1, !0, Link::N, true), region(0x100, !0, Link::E, false)]).len(), 1);
    assert!(minimise(&[region(1, !0, Link::N, true)]).is_empty());
    assert!(minimise(&[]).is_empty());
    // Keys that nobody sends are free to take: 1 and 6 become one entry.
    assert_eq!(minimise(&[region(1, !0, Link::N, false), region(6, !0, Link::N, false)]).len(), 1);
}

/// Random disjoint regions over a small space of keys, spread over the word by a mask of positions.
fn regions() -> impl Strategy<Value = Vec<Region>> {
    let one = (any::<u32>(), any::<u32>(), any::<u32>(), 0_u32..6, any::<bool>());
    (prop::collection::vec(one, 1..80), 0_u32..22).prop_map(|(rows, shift)| {
        let mut regions: Vec<Region> = Vec::new();
        for (key, a, b, way, by_default) in rows {
            let mask = !(0x3FF << shift) | (a | b) & 0x3FF << shift;
            let key = key & (0x3FF << shift) & mask;
            if regions.iter().all(|other| !intersect(other.key, other.mask, key, mask)) {
                let link = Link::ALL[way as usize];
                let by_default = by_default && way < 2;
                let route = Route::NONE.with_link(link);
                // What default routing does is to leave by one of two links, and also an entry's work now and then.
                regions.push(Region { key, mask, route, by_default });
            }
        }
        regions
    })
}

proptest! {
    #[test]
    fn short_tables_do_the_same(regions in regions()) {
        let table = minimise(&regions);
        prop_assert!(table.len() <= regions.iter().filter(|region| !region.by_default).count());
        prop_assert_eq!(first_difference(&table, &regions), None);
        // The same by plain look-ups, key for key of the 10 bits that vary.
        let fixed = regions.iter().fold(u32::MAX, |mask, region| mask & region.mask);
        let varying: BTreeSet<u32> = (0..32).filter(|bit| fixed >> bit & 1 == 0).collect();
        for region in &regions {
            let free: Vec<u32> = varying.iter().copied().filter(|bit| region.mask >> bit & 1 == 0).collect();
            for number in 0..1_u32 << free.len() {
                let bits = free.iter().enumerate().fold(0, |key, (at, bit)| key | (number >> at & 1) << bit);
                let key = region.key | bits;
                match table.iter().find(|entry| entry.matches(key)) {
                    Some(entry) => prop_assert_eq!(entry.route, region.route),
                    None => prop_assert!(region.by_default),
                }
            }
        }
    }

    #[test]
    fn wrong_tables_are_found(regions in regions(), which: prop::sample::Index, how in 0..2) {
        let mut table = minimise(&regions);
        prop_assume!(!table.is_empty());
        let place = which.index(table.len());
        // Another way for one entry is wrong for at least one region, as is no entry.
        if how == 0 {
            table[place].route = Route::NONE.with_core(9);
        } else {
            table.insert(0, RoutingEntry { key: 0, mask: 0, route: Route::NONE.with_core(9) });
        }
        let key = first_difference(&table, &regions);
        prop_assert!(key.is_some());
        let key = key.unwrap_or(0);
        let region = regions.iter().find(|region| key & region.mask == region.key).expect("a key in use");
        let got = table.iter().find(|entry| entry.matches(key)).map(|entry| entry.route);
        prop_assert_ne!(got, Some(region.route));
    }
}

#[test]
fn parts_of_keys_come_from_nets() {
    let machine = Machine::spin3();
    let chips: Vec<ChipXy> = machine.chips.keys().copied().collect();
    let tree = ReplicaTree::build(&machine, &chips, None).expect("a tree");
    let cores = machine.chips.iter().map(|(&xy, chip)| (xy, chip.cores.clone())).collect();
    for net in nets_for(&tree, &cores, 17).expect("nets") {
        // The lowest key of a net that masks the core out belongs to no core.
        let parts = KeyParts::of(net.key | u32::from(net.mask >> keys::CORE_SHIFT & 1 == 0) << keys::CORE_SHIFT);
        assert_eq!(parts.map(|parts| tree.chips()[parts.chip_index]), Some(net.source));
    }
}

/// Not a benchmark: it takes some 10 ms, and a limit far above shows only what would be felt.
#[test]
fn a_board_is_routed_quickly() {
    let machine = Machine::spin5();
    let started = std::time::Instant::now();
    let chips: Vec<ChipXy> = machine.chips.keys().copied().collect();
    let tree = ReplicaTree::build(&machine, &chips, None).expect("a tree");
    let cores = machine.chips.iter().map(|(&xy, chip)| (xy, chip.cores.clone())).collect();
    let nets = nets_for(&tree, &cores, 16).expect("nets");
    route(&machine, &nets).expect("tables");
    let elapsed_s = started.elapsed().as_secs_f64();
    println!("{elapsed_s} s");
    assert!(elapsed_s < 0.5, "{elapsed_s} s");
}
