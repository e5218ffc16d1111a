//! Official application binaries, unmodified: loaded by flood fill into four chips, run to their documented states, and
//! made to talk with each other and the host.
//!
//! Regions are written by hand, as the official front end lays them out (its Python sources say what each word is).

mod common;

use common::{MS, aplx, ask, boot, boot_image, patch, root, scp, until_up};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{BoardAddress, CycleConfig, CycleMachine, Datagram, default_address};

const APP_ID: u32 = 30;
/// Core states. READY is where the simulation interface ends a run.
const READY: u8 = 5;
const RUN: u8 = 7;
const SYNC0: u8 = 8;
const PAUSE: u8 = 10;
/// SCP commands.
const WRITE: u16 = 3;
const NNP: u16 = 20;
const SIG: u16 = 22;
const FFD: u16 = 23;
const IPTAG: u16 = 26;
const RTR: u16 = 29;
/// Where data of cores go: behind what the monitor uses at the start of user SDRAM.
const DATA: u32 = 0x6300_0000;
/// Multicast keys: of timed commands, of what the host sends in.
const COMMAND_KEY: u32 = 0x1000;
const HOST_KEY: u32 = 0x2000;

struct Application {
    file: &'static str,
    core: u8,
    /// Region number, words, size in words.
    regions: Vec<(usize, Vec<u32>, usize)>,
    /// State in which it waits for what comes.
    state: u8,
}

impl Application {
    /// `name_hash` are the first 32 bits of the MD5 sum of the file's name, by which the front end knows the binary; 0 for
    /// binaries that do not use the simulation interface.
    fn new(file: &'static str, core: u8, name_hash: u32, state: u8) -> Self {
        let mut application = Self { file, core, regions: Vec::new(), state };
        if name_hash != 0 {
            // Name, time step in us, SDP port for run control.
            application.regions.push((0, vec![name_hash, 1000, 3], 3));
        }
        application
    }

    fn region(mut self, number: usize, words: &[u32], size: usize) -> Self {
        self.regions.push((number, words.to_vec(), size));
        self
    }

    /// The region table and the regions, for this address.
    fn data(&self, address: u32) -> Vec<u32> {
        let mut table = vec![0; 2 + 3 * 32];
        (table[0], table[1]) = (0xAD13_0AD6, 0x0001_0000);
        let mut data = Vec::new();
        for (number, words, size) in &self.regions {
            let entry = 2 + 3 * number;
            table[entry] = address + 4 * (table.len() + data.len()) as u32;
            table[entry + 1] = words.iter().fold(0, |sum: u32, &word| sum.wrapping_add(word));
            table[entry + 2] = words.len() as u32;
            data.extend_from_slice(words);
            data.resize(data.len() + size - words.len(), 0);
        }
        table.extend(data);
        table
    }
}

fn applications() -> Vec<Application> {
    let provenance = 64;
    vec![
        Application::new("reverse_iptag_multicast_source.aplx", 1, 0x62BF_FBD5, PAUSE)
            // No prefix; keys not checked; key and mask; no send buffer; SDP port 1; no offset.
            .region(1, &[0, 0, 0, 0, 1, HOST_KEY, 0xFFFF_FF00, 0, 0, 0, 0, 1, 0], 13)
            .region(2, &[1, 0, 0, 0], 4)
            .region(4, &[], provenance),
        Application::new("live_packet_gather.aplx", 2, 0x9332_F52F, PAUSE)
            // No prefix; 32-bit keys without payload; tag 1 at (0, 0); all packets; whole keys, not translated.
            .region(1, &[0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0xFFFF_FFFF, 0, 0], 15)
            .region(2, &[], provenance),
        Application::new("command_sender_multicast_source.aplx", 3, 0xA98E_0068, PAUSE)
            // Two commands in time: at 5 with payload, at 8 without; one at the start.
            .region(1, &[2, 5, COMMAND_KEY + 5, 1, 99, 0, 0, 8, COMMAND_KEY + 8, 0, 0, 0, 0], 13)
            .region(2, &[1, COMMAND_KEY + 1, 0, 0, 0, 0], 6)
            .region(3, &[0], 1)
            .region(4, &[], provenance),
        Application::new("chip_power_monitor.aplx", 4, 0x72B6_DB97, PAUSE)
            // 10 samples a recording, one each 100 us.
            .region(1, &[10, 100], 2)
            .region(2, &[1, 4096, 0, 0], 4 + 1024)
            .region(3, &[], provenance),
        Application::new("extra_monitor_support.aplx", 5, 0, RUN)
            // Reinject everything; time-out key.
            .region(0, &[0, 0, 0, 0, 0xFFFF_FF00], 5)
            .region(1, &[0xFFFF_FFF9, 0xFFFF_FFF8, 0xFFFF_FFF7, 0xFFFF_FFF5, 0xFFFF_FFF6], 5)
            .region(2, &[0xFFFF_FE00, 0xFFFF_FE01, 0xFFFF_FE02, 0], 200)
            .region(3, &[], provenance),
        Application::new("data_speed_up_packet_gatherer.aplx", 6, 0, RUN)
            .region(0, &[0xFFFF_FFF8, 0xFFFF_FFF7, 0xFFFF_FFF5, 0xFFFF_FFF6, 0xFFFF_FFF9, 2], 6)
            .region(1, &[1, 0xFFFF_FF00, 0, 0, 0xFFFF_FE00], 200)
            .region(2, &[], provenance),
    ]
}

fn write(machine: &mut CycleMachine, chip: ChipXy, address: u32, words: &[u32]) {
    for (i, part) in words.chunks(64).enumerate() {
        let bytes: Vec<u8> = part.iter().flat_map(|word| word.to_le_bytes()).collect();
        let arguments = [address + 256 * i as u32, bytes.len() as u32, 2];
        let reply = ask(machine, scp(chip, 0, WRITE, arguments, &bytes));
        assert_eq!(reply.map(|(code, _)| code), Some(0x80), "write to {chip} {address:#x}");
    }
}

/// Sends an APLX to all chips by flood fill and starts it there.
fn flood(machine: &mut CycleMachine, file: &[u8], id: u32, core: u8) {
    let root = root(machine);
    // A block keeps the monitor busy for 50 ms, and when its pool of events runs out meanwhile it drops the reply: hosts ask
    // again.
    let mut do_it = |command, arguments, data: &[u8]| {
        let request = scp(root, 0, command, arguments, data);
        let reply = (0..3).find_map(|_| ask(machine, request.clone()));
        assert_eq!(reply.map(|(code, _)| code), Some(0x80), "command {command}");
    };
    let blocks = file.len().div_ceil(256) as u32;
    do_it(NNP, [0x0600_0000 + (id << 16) + (blocks << 8), 0xFFFF, 0x8000_3F1A], &[]);
    do_it(NNP, [0x0700_0000 + (1 << core), 0xFFFF, 0x0000_3F1A], &[]);
    for (number, block) in file.chunks(256).enumerate() {
        let mut block = block.to_vec();
        block.resize(block.len().next_multiple_of(4), 0);
        let words = block.len() as u32 / 4;
        let number = number as u32;
        do_it(FFD, [0x3F1E_0000 + id, (number << 16) + ((words - 1) << 8), 0x6780_0000 + 256 * number], &block);
    }
    do_it(NNP, [0x0F00_0000 + id, APP_ID << 24 | 1 << core, 0x0000_3F1A], &[]);
}

fn states(machine: &mut CycleMachine, core: u8) -> Vec<u8> {
    let chips = machine.places().to_vec();
    let state = |chip| machine.peek(chip, 0xE500_702E + 128 * u32::from(core), 1).map_or(0, |state| state[0]);
    chips.into_iter().map(state).collect()
}

fn signal(machine: &mut CycleMachine, number: u32) {
    let root = root(machine);
    let word = number << 16 | 0xFF00 | APP_ID;
    assert_eq!(ask(machine, scp(root, 0, SIG, [0, word, 0xFFFF], &[])).map(|(code, _)| code), Some(0x80));
}

/// Keys in the EIEIO messages that came to the host's port for tag 1, with the machine time of each.
fn gathered(machine: &mut CycleMachine) -> Vec<(u64, u32)> {
    let mut keys = Vec::new();
    while let Some(datagram) = machine.receive() {
        if datagram.host.port() != 17894 {
            continue;
        }
        let data = &datagram.data;
        assert_eq!(data[1] & 0xFC, 0x08, "32-bit keys without payload");
        keys.extend(
            data[2..]
                .chunks_exact(4)
                .map(|key| (datagram.time_ns, u32::from_le_bytes([key[0], key[1], key[2], key[3]]))),
        );
    }
    keys
}

fn set_run_time(machine: &mut CycleMachine, core: u8, from: u32, to: u32) {
    let root = root(machine);
    let mut request = scp(root, core, 7, [to, 0, from], &0u32.to_le_bytes());
    request[4] |= 3 << 5;
    assert_eq!(ask(machine, request).map(|(code, _)| code), Some(0x80), "run time of core {core}");
}

#[test]
fn six_applications_reach_their_states_and_talk() {
    let Some(mut image) = boot_image() else {
        println!("not run: no boot image (SPINNAKER_BOOT_IMAGE, or an installed SpiNNMan)");
        return;
    };
    let applications = applications();
    let files: Option<Vec<Vec<u8>>> = applications.iter().map(|application| aplx(application.file)).collect();
    let Some(files) = files else {
        println!("not run: no official APLX files (SPINNAKER_APLX, or an installed SpiNNFrontEndCommon)");
        return;
    };
    patch(&mut image, 3, 1);
    let address = BoardAddress { mask: [255, 255, 255, 0].into(), ..default_address(0) };
    let config = CycleConfig { addresses: [(ChipXy::new(0, 0), address)].into(), ..CycleConfig::default() };
    let mut machine = CycleMachine::new(&Machine::spin3(), &config);
    boot(&mut machine, &image);
    assert!(until_up(&mut machine, 5000));
    let root = root(&machine);
    let chips = machine.places().to_vec();

    for (application, file) in applications.iter().zip(&files) {
        let data = DATA + 0x10000 * u32::from(application.core);
        for &chip in &chips {
            write(&mut machine, chip, data, &application.data(data));
            write(&mut machine, chip, 0xE500_7070 + 128 * u32::from(application.core), &[data]);
        }
        flood(&mut machine, file, 2 * u32::from(application.core), application.core);
        machine.run_for(50 * MS);
        let states = states(&mut machine, application.core);
        assert_eq!(states, vec![application.state; 4], "{}: states on the four chips", application.file);
    }

    // Tag 1: to the host's port 17894, without SDP header. Tag 2: datagrams to port 12000 go to port 1 of core 1.
    let tag = |flags: u32, tag: u32, place: u32| flags << 28 | 1 << 16 | place << 8 | tag;
    for arguments in [[tag(1, 1, 0), 17894, 0xFEF0_A8C0], [tag(3, 2, 1 << 5 | 1), 12000, 0]] {
        assert_eq!(ask(&mut machine, scp(root, 0, IPTAG, arguments, &[])).map(|(code, _)| code), Some(0x80));
    }
    // Both kinds of keys go to the gatherer on core 2.
    let route = APP_ID << 24 | 1 << (6 + 2);
    let entries = [[0, route, COMMAND_KEY, 0xFFFF_FF00], [1, route, HOST_KEY, 0xFFFF_FF00]].concat();
    write(&mut machine, root, 0x6780_0000, &entries);
    let load = [2 | APP_ID << 8 | 2 << 16, 0x6780_0000, 100];
    assert_eq!(ask(&mut machine, scp(root, 0, RTR, load, &[])).map(|(code, _)| code), Some(0x80));

    // Run for 20 ms of simulated neurons' time.
    for core in 1..=4 {
        set_run_time(&mut machine, core, 0, 20);
        assert_eq!(states(&mut machine, core)[0], SYNC0, "core {core} waits for the start");
    }
    while machine.receive().is_some() {}
    let begin = machine.now_ns();
    signal(&mut machine, 4);
    machine.run_for(3 * MS);
    let host = "192.168.240.254:5555".parse().expect("an address");
    let mut data = vec![2, 0x08];
    data.extend([HOST_KEY + 7, HOST_KEY + 9].iter().flat_map(|key| key.to_le_bytes()));
    machine.send(&Datagram { board: root, host, port: 12000, time_ns: 0, data });
    machine.run_for(40 * MS);
    let keys = gathered(&mut machine);
    let only: Vec<u32> = keys.iter().map(|&(_, key)| key).collect();
    let mut sorted = only.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [COMMAND_KEY + 1, COMMAND_KEY + 5, COMMAND_KEY + 8, HOST_KEY + 7, HOST_KEY + 9]);
    let time = |key: u32| keys.iter().find(|&&(_, k)| k == key).map_or(0, |&(time, _)| time);
    // Timer ticks are a millisecond apart, and the gatherer sends at each.
    let between = time(COMMAND_KEY + 8) - time(COMMAND_KEY + 5);
    assert!(between.abs_diff(3 * MS) < MS / 10, "{between} ns between ticks 5 and 8");
    assert!(time(COMMAND_KEY + 1) - begin < 3 * MS);
    for core in 1..=4 {
        let state = states(&mut machine, core)[0];
        assert_eq!(state, READY, "core {core} after its run");
    }
    // The system applications go on.
    assert_eq!((states(&mut machine, 5), states(&mut machine, 6)), (vec![RUN; 4], vec![RUN; 4]));
}
