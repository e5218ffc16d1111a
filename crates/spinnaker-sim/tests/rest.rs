//! Wakes that are put off are made as if they had been executed: a machine that rests is as one that does not.

mod common;

use common::{MS, boot, boot_image, datagram, patch, scp};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CoreActivity, CoreSnapshot, CycleConfig, CycleMachine};

/// What can be seen of a chip.
#[derive(PartialEq)]
struct Seen {
    cores: Vec<CoreSnapshot>,
    routed: [u64; 2],
    system_ram: Vec<u8>,
}

fn seen(machine: &mut CycleMachine) -> Vec<Seen> {
    let chips = machine.snapshot().chips;
    let all = chips.into_iter().map(|chip| Seen {
        system_ram: machine.peek(chip.place, 0xF500_0000, 32 << 10).expect("system RAM"),
        cores: chip.cores,
        routed: chip.routed,
    });
    all.collect()
}

/// Compares all chips whose cores sleep. A machine may be some microseconds ahead of its time: a chip that differs must not do so
/// ten later. How many were compared.
fn assert_same(machines: &mut [CycleMachine; 2]) -> usize {
    let mut differing = 0..4;
    for last in [false, false, true] {
        let [one, other] = machines.each_mut().map(seen);
        let sleeps = |chip: &Seen| chip.cores.iter().all(|core| core.activity != CoreActivity::Running);
        let both = differing.clone().filter(|&chip| sleeps(&one[chip]) && sleeps(&other[chip]));
        let differs: Vec<usize> = both.clone().filter(|&chip| one[chip] != other[chip]).collect();
        let (Some(&first), compared) = (differs.first(), both.count()) else { return 4 };
        if last {
            let at = machines[0].now_ns();
            assert_eq!(one[first].cores, other[first].cores, "chip {first} at {at} ns");
            assert_eq!(one[first].routed, other[first].routed, "chip {first} at {at} ns");
            panic!("system RAM of chip {first} at {at} ns ({compared} chips compared)");
        }
        machines.iter_mut().for_each(|machine| machine.run_for(10_000));
        differing = first..first + 1;
    }
    4
}

#[test]
fn a_machine_that_rests_is_as_one_that_does_not() {
    let Some(mut image) = boot_image() else { return };
    patch(&mut image, 3, 0x502);
    let mut machines = [true, false].map(|rests| {
        let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig { rests, ..CycleConfig::default() });
        boot(&mut machine, &image);
        machine
    });
    for round in 0..600u64 {
        let replies = machines.each_mut().map(|machine| {
            if round % 5 == 0 {
                let chip = ChipXy::new(round as u8 / 5 & 1, round as u8 / 10 & 1);
                let request = datagram(machine, 17893, scp(chip, 0, 2, [0x6000_0000, 64, 2], &[]));
                machine.send(&request);
            }
            machine.run_for(7 * MS + 137_011 * (round % 8));
            std::iter::from_fn(|| machine.receive()).map(|reply| (reply.time_ns, reply.data)).collect::<Vec<_>>()
        });
        assert_eq!(replies[0], replies[1], "round {round}");
        assert_same(&mut machines);
    }
}
