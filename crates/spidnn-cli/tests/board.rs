//! `spidnn board` as a client sees it.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use spinnaker_host::{BootOptions, HostError};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::sv::Board;
use spinnaker_wire::vcpu::CoreState;
use spinnaker_wire::{AppId, ChipAddress};

mod served;
use served::{Served, boot_image};

const ROOT: Endpoint = Endpoint::core(ChipAddress::ROOT, 0);

#[tokio::test]
async fn a_blank_board_says_nothing_but_is_there() {
    let served = Served::start(&["--machine", "virtual:spin3?fidelity=cycle", "--listen", "127.0.51.1:0"]);
    assert_eq!(served.line["machine"]["chips"], 4);
    assert_eq!(served.line["boards"].as_array().map(Vec::len), Some(1));
    assert!(matches!(served.transceiver().await.version(ROOT).await, Err(HostError::Silent { .. })));
    let log = served.quit("what\nsnapshot\nquit\n");
    for text in ["core", "is monitor", "client 127.0.0.1:", "chip 1,1: monitor", "`what`: the words are"] {
        assert!(log.contains(text), "no `{text}` in {log}");
    }
}

#[test]
fn a_network_predicts_over_sockets_as_in_process() {
    let graph = spidnn::builtin::graph("lenet5").expect("built in");
    let numbers = (0..32 * 784).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = spidnn::Tensor::from_shape_vec(vec![32, 28, 28, 1], numbers).expect("a tensor");
    let data = spidnn::Dataset::new(x, spidnn::Tensor::zeros(vec![32]));
    let predict = |machine: spidnn::Machine| {
        let begin = std::time::Instant::now();
        let mut session = spidnn::Model::untrained(graph.clone(), 3).on(machine).unwrap_or_else(|e| panic!("{e}"));
        let loaded = begin.elapsed();
        let outputs = session.predict(&data).unwrap_or_else(|e| panic!("{e}"));
        println!("opened in {loaded:?}, predicted in {:?}", begin.elapsed() - loaded);
        outputs
    };
    for pace in ["fast", "10"] {
        let served = Served::start(&["--machine", "virtual:spin3", "--listen", "127.0.61.1:0", "--pace", pace]);
        let remote = predict(spidnn::Machine::open(&served.locator()).expect("it answers"));
        let local = predict(spidnn::Machine::virtual_spin3());
        for (a, b) in remote.iter().zip(&local) {
            assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{a} {b}");
        }
        let log = served.quit("quit\n");
        assert!(log.contains("SARK -> SYNC0") || log.contains("IDLE -> SYNC0"), "{log}");
    }
}

#[tokio::test]
async fn a_fast_board_is_booted_and_answers() {
    let served = Served::start(&["--machine", "virtual:3boards", "--listen", "127.0.58.1:0"]);
    assert_eq!(served.line["boards"].as_array().map(Vec::len), Some(3));
    let mut board = served.transceiver().await;
    let kernel = board.version(ROOT).await.expect("answers at once");
    assert_eq!((kernel.name.as_str(), kernel.version), ("SC&MP", (4, 0, 0)));
    let found = board.discover().await.expect("discovers");
    assert_eq!(found.chips.len(), 144);
    let ethernet: Vec<_> = found.chips.iter().filter_map(|chip| chip.info.ip).collect();
    assert_eq!(ethernet, [[127, 0, 58, 1], [127, 0, 58, 2], [127, 0, 58, 3]], "boards know their addresses");
    let far = ChipAddress::new(11, 11);
    let address = board.alloc_sdram(far, AppId(30), 100_000, 1).await.expect("memory");
    let data: Vec<u8> = (0..100_000u32).map(|i| (i * 31 / 7) as u8).collect();
    let monitor = Endpoint::core(far, 0);
    board.write(monitor, address, &data).await.expect("writes");
    assert!(board.read(monitor, address, data.len()).await.expect("reads") == data);
    // What no client means to send does no harm.
    let port = |name: &str| served.line[name].as_u64().expect("a port");
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for (number, length) in [0, 1, 9, 10, 25, 26, 282, 283, 1472].into_iter().enumerate() {
        for port in [port("scp_port"), port("boot_port")] {
            let junk: Vec<u8> = (0..length).map(|i| (i * 37 + number * 11) as u8).collect();
            stranger.send_to(&junk, format!("127.0.58.1:{port}")).expect("sent");
        }
    }
    assert_eq!(board.version(ROOT).await.expect("still answers").name, "SC&MP");
    let log = served.quit("snapshot\nquit\n");
    for text in ["144 chips (0,0 to 11,11): network is up", "client 127.0.0.1:", "chip 1,1: 0 running"] {
        assert!(log.contains(text), "no `{text}` in {log}");
    }
}

#[tokio::test]
async fn the_official_monitor_is_booted_over_sockets() {
    let Some(path) = boot_image() else { return };
    let machine = "virtual:spin3?fidelity=cycle";
    let served = Served::start(&["--machine", machine, "--listen", "127.0.52.1:0", "--pace", "4", "--packets"]);
    let image = std::fs::read(path).expect("reads");
    let mut board = served.transceiver().await;
    let kernel = board.boot(&image, &BootOptions::new(Board::Spin3, 0x5F00_0000)).await.expect("boots");
    assert_eq!((kernel.name.as_str(), kernel.version), ("SC&MP", (4, 0, 0)));
    let found = board.discover().await.expect("discovers");
    assert_eq!(found.chips.len(), 4);
    let ethernet = found.chips.iter().find(|chip| chip.info.ip.is_some()).expect("an Ethernet chip");
    assert_eq!(ethernet.info.ip, Some([127, 0, 52, 1]), "a board knows its address");
    let address = board.alloc_sdram(ChipAddress::new(1, 1), AppId(30), 20_000, 1).await.expect("memory");
    let data: Vec<u8> = (0..20_000u32).map(|i| (i * 31 / 7) as u8).collect();
    let monitor = Endpoint::core(ChipAddress::new(1, 1), 0);
    board.write(monitor, address, &data).await.expect("writes");
    assert!(board.read(monitor, address, data.len()).await.expect("reads") == data);
    let idle = board.wait_for(ChipAddress::new(0, 0), AppId(0), CoreState::Idle, 68, Duration::from_secs(5)).await;
    idle.expect("all cores idle");
    let log = served.quit("q\n");
    for text in ["boot start 30 blocks", "INFO", "scp reply ok"] {
        assert!(log.contains(text), "no `{text}` in the log");
    }
    // All four chips, in one line or, where they are seen at different times, in several.
    let up: Vec<&str> = log.lines().filter_map(|line| line.split_once(": network is up")).map(|(who, _)| who).collect();
    let chips = |who: &str| {
        let count = who.split_once(" chips (").and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok());
        count.unwrap_or(1)
    };
    assert_eq!(up.iter().map(|who| chips(who)).sum::<u32>(), 4, "{up:?}");
}

#[tokio::test]
async fn an_image_given_at_the_start_boots_the_machine() {
    let Some(path) = boot_image() else { return };
    let machine = "virtual:spin3?fidelity=cycle";
    let served =
        Served::start(&["--machine", machine, "--listen", "127.0.53.1:0", "--pace", "fast", "--boot-image", &path]);
    let mut board = served.transceiver().await;
    let mut tries = 20;
    // Before the monitor is up nobody answers.
    let kernel = loop {
        match board.wait_ready(Duration::from_secs(20)).await {
            Err(HostError::Silent { .. }) if tries > 0 => tries -= 1,
            ready => break ready.expect("boots"),
        }
    };
    assert_eq!(kernel.name, "SC&MP");
    served.quit("quit\n");
}

/// The official host library, where there is one: `SPINNAKER_PYTHON` says with which Python. Its checks are a script's.
fn check_by_official_library(machine: &str, version: &str, address: &str, bmp: &str, more: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/official/spinnman_board.py");
    let python = std::env::var("SPINNAKER_PYTHON").unwrap_or_else(|_| "python3".to_string());
    // The library has the official ports built in.
    let served = Served::start(&["--machine", machine, "--listen", address, "--bmp", bmp, "--quiet"]);
    let mut command = Command::new(python);
    command.args([script, "--version", version, "--bmp", bmp]).args(more);
    for board in served.line["boards"].as_array().expect("boards") {
        command.args(["--board", board["address"].as_str().expect("an address")]);
    }
    let Ok(output) = command.output() else {
        println!("not run: no Python (SPINNAKER_PYTHON, or python3)");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    const NO_LIBRARY: i32 = 3;
    let passed = matches!(output.status.code(), Some(0 | NO_LIBRARY));
    assert!(passed, "{machine}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    served.quit("quit\n");
}

#[test]
fn the_official_library_works_with_four_chips() {
    check_by_official_library("virtual:spin3?fidelity=cycle", "3", "127.0.55.1", "127.0.55.9", &[]);
}

#[test]
fn the_official_library_works_with_fast_boards() {
    let refuses = ["--refuses", "fidelity=cycle"];
    check_by_official_library("virtual:spin3", "3", "127.0.59.1", "127.0.59.9", &refuses);
    check_by_official_library("virtual:3boards", "5", "127.0.60.1", "127.0.60.9", &refuses);
}

#[test]
fn the_official_library_works_with_48_chips_and_with_three_boards() {
    if std::env::var_os("SPINNAKER_LONG_TESTS").is_none() {
        println!("not run: SPINNAKER_LONG_TESTS is not set");
        return;
    }
    check_by_official_library("virtual:spin5?fidelity=cycle", "5", "127.0.56.1", "127.0.56.9", &[]);
    check_by_official_library("virtual:3boards?fidelity=cycle", "5", "127.0.57.1", "127.0.57.9", &[]);
}

#[test]
fn what_cannot_be_served_is_told() {
    let refused = |args: &[&str], word: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_spidnn")).arg("board").args(args).output().expect("runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        let text = text.split_whitespace().filter(|w| *w != "│").collect::<Vec<_>>().join(" ");
        assert!(text.contains(word), "{args:?}: no `{word}` in {text}");
    };
    let cycle = "virtual:spin3?fidelity=cycle";
    refused(&["--machine", "virtual:spin3", "--gdb", "0,0,1"], "--gdb: only boards whose cores execute instructions");
    refused(&["--machine", "virtual:spin3", "--trace", "trace.json"], "add fidelity=cycle");
    refused(&["--machine", "virtual:spin3", "--boot-image", "scamp.boot"], "are booted already");
    refused(&["--machine", "board:localhost"], "virtual machines");
    refused(&["--machine", "virtual:spin3?fidelity=cycle&host_mbps=10"], "leave host_mbps out");
    refused(&["--machine", cycle, "--listen", "0.0.0.0"], "IPv4 address of this computer");
    refused(&["--machine", cycle, "--listen", "192.0.2.1:0"], "cannot listen on 192.0.2.1:0");
    refused(&["--machine", cycle, "--pace", "0"], "--pace 0");
    refused(&["--machine", cycle, "--listen", "127.0.54.1:777", "--boot-port", "777"], "different ports");
    refused(&["--machine", cycle, "--boot-image", "/dev/null", "--listen", "127.0.54.1:0"], "no boot image");
    let served = Served::start(&["--machine", cycle, "--listen", "127.0.54.1:0"]);
    let busy = format!("127.0.54.1:{}", served.line["scp_port"]);
    refused(&["--machine", cycle, "--listen", &busy, "--boot-port", "0"], "cannot listen on 127.0.54.1:");
}

#[test]
fn a_board_is_watched_from_outside() {
    let folder = std::env::temp_dir().join(format!("spidnn-board-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (trace, instructions) = (file("trace.json"), format!("0,0,0={}", file("instructions.txt")));
    let mut args = vec!["--machine", "virtual:spin3?fidelity=cycle", "--listen", "127.0.55.1:0", "--pace", "fast"];
    args.extend(["--gdb", "0,0,0", "--gdb-port", "0", "--break", "packet:0/0@0,0", "--break", "dma@0,0,0"]);
    args.extend([
        "--profile",
        "none",
        "--trace",
        &trace,
        "--trace-limit",
        "5000",
        "--instruction-trace",
        &instructions,
    ]);
    let image = boot_image();
    if let Some(image) = &image {
        args.extend(["--boot-image", image]);
    }
    let served = Served::start(&args);
    assert_eq!(served.line["gdb"]["address"], "127.0.55.1");
    let port = served.line["gdb"]["port"].as_u64().expect("a port") as u16;
    let mut gdb = std::net::TcpStream::connect(("127.0.55.1", port)).expect("it listens");
    gdb.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    gdb.write_all(b"$?#3f").expect("open");
    let mut answer = [0; 8];
    std::io::Read::read_exact(&mut gdb, &mut answer).expect("an answer");
    assert!(answer.starts_with(b"+$"), "{answer:?}");
    drop(gdb);
    let log = served.quit("quit\n");
    for text in ["has core 0,0,0 (physical", "profile: cycles by core and function", "instruction trace"] {
        assert!(log.contains(text), "no `{text}` in {log}");
    }
    let text = std::fs::read_to_string(&trace).expect("a trace");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert!(value["traceEvents"].as_array().is_some_and(|events| events.len() > 100));
    let lines = std::fs::read_to_string(file("instructions.txt")).expect("a trace");
    if image.is_some() {
        assert_eq!(lines.lines().count(), 5001, "the limit, and a line that says so");
        assert!(log.contains("core 0,0,"), "{log}");
    } else {
        eprintln!("not run: no boot image, so nothing but the boot ROM was watched");
        assert!(lines.is_empty());
    }
    std::fs::remove_dir_all(&folder).expect("ours");
}

#[test]
fn what_cannot_be_watched_is_told() {
    for (args, word) in [
        (["--gdb", "0,0"], "wants a core as X,Y,P"),
        (["--gdb", "5,5,0"], "no chip 5,5"),
        (["--gdb", "0,0,18"], "0 to 17"),
        (["--break", "packets"], "wants packet:KEY/MASK@X,Y"),
        (["--profile", "/nonexistent.elf"], "No such file"),
        (["--profile", "/bin/sh"], "no program for a little-endian 32-bit ARM"),
        (["--instruction-trace", "0,0,1"], "wants a core and a file"),
        (["--trace", "/nonexistent/trace.json"], "No such file"),
        (["--gdb-port", "5"], "--gdb"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_spidnn"))
            .args(["board", "--machine", "virtual:spin3?fidelity=cycle", "--listen", "127.0.56.1:0"])
            .args(args)
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        let text = text.split_whitespace().filter(|w| *w != "│").collect::<Vec<_>>().join(" ");
        assert!(text.contains(word), "{args:?}: no `{word}` in {text}");
    }
}
