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
/// twenty later.
fn assert_same(machines: &mut [CycleMachine; 2]) {
    let mut looks = 3;
    loop {
        looks -= 1;
        let [one, other] = machines.each_mut().map(seen);
        let sleeps = |chip: &Seen| chip.cores.iter().all(|core| core.activity != CoreActivity::Running);
        let differs =
            (0..one.len()).find(|&chip| sleeps(&one[chip]) && sleeps(&other[chip]) && one[chip] != other[chip]);
        let Some(chip) = differs else { return };
        if looks == 0 {
            let at = machines[0].now_ns();
            assert_eq!(one[chip].cores, other[chip].cores, "chip {chip} at {at} ns");
            assert_eq!(one[chip].routed, other[chip].routed, "chip {chip} at {at} ns");
            panic!("system RAM of chip {chip} at {at} ns");
        }
        machines.iter_mut().for_each(|machine| machine.run_for(10_000));
    }
}

/// The monitor's own memories. Whoever looks there ends a rest.
fn memories(machine: &mut CycleMachine, chip: ChipXy) -> (Vec<u8>, Vec<u8>) {
    let monitor = machine.physical(chip, 0).expect("a monitor");
    let cpu = machine.cpu(chip, monitor).expect("a core");
    (cpu.itcm().to_vec(), cpu.dtcm().to_vec())
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
                let chip = ChipXy::new((round / 5 % 2) as u8, (round / 10 % 2) as u8);
                let request = datagram(machine, 17893, scp(chip, 0, 2, [0x6000_0000, 64, 2], &[]));
                machine.send(&request);
            }
            machine.run_for(7 * MS + 137_011 * (round % 8));
            std::iter::from_fn(|| machine.receive()).map(|reply| (reply.time_ns, reply.data)).collect::<Vec<_>>()
        });
        assert_eq!(replies[0], replies[1], "round {round}");
        assert_same(&mut machines);
        if round % 30 == 29 {
            let [one, other] = machines.each_mut().map(|machine| memories(machine, ChipXy::new(0, 1)));
            assert!(one.0 == other.0, "instruction memory in round {round}");
            let differs = one.1.iter().zip(&other.1).position(|(one, other)| one != other);
            assert_eq!(differs, None, "data memory in round {round}");
        }
    }
}
