//! Networks over the network: everything that a session does, by sockets, on a board whose monitor is the official one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use spinnaker_host::bulk::Bulk;
use spinnaker_host::{Boards, Place};
use spinnaker_wire::{AppId, ChipAddress};

mod served;
use served::{Served, boot_image};

fn spidnn(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spidnn")).args(args).arg("--quiet").output().expect("starts")
}

fn json(args: &[&str]) -> Value {
    let output = spidnn(&[args, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{args:?}: {e}: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

fn done(args: &[&str]) {
    let output = spidnn(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn refused(args: &[&str], code: i32, texts: &[&str]) {
    let output = spidnn(args);
    let said: Vec<String> = String::from_utf8_lossy(&output.stderr).split_whitespace().map(String::from).collect();
    // The report is wrapped and decorated.
    let said = said.join(" ").replace("│ ", "");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for text in texts {
        assert!(said.contains(text), "no `{text}` in: {said}");
    }
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn the_official_monitor_carries_a_session() {
    let Some(image) = boot_image() else { return };
    let machine = "virtual:spin3?fidelity=cycle";
    let board =
        Served::start(&["--machine", machine, "--listen", "127.0.71.1:0", "--pace", "fast", "--boot-image", &image]);
    let locator = board.locator();
    let found = wait_until_ready(&locator);
    assert_eq!((&found["chip_count"], &found["core_count"]), (&4.into(), &68.into()));
    assert_eq!(found["version"]["monitor"], "4.0.0");
    assert_eq!(found["applications"], Value::Array(vec![]));
    a_session(&locator, "virtual:spin3");
    applications(&locator);
}

/// The machine's description, when its monitor is up.
fn wait_until_ready(locator: &str) -> Value {
    let began = Instant::now();
    loop {
        let output = spidnn(&["machine", locator, "--json"]);
        match serde_json::from_slice(&output.stdout) {
            Ok(value) if output.status.success() => return value,
            _ => assert!(began.elapsed() < Duration::from_secs(120), "{}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}

/// Predicts and trains with the bits of a virtual machine.
fn a_session(locator: &str, virtual_machine: &str) {
    let (here, there) = (file("here.npz"), file("there.npz"));
    let paths = (here.to_str().expect("text"), there.to_str().expect("text"));
    let predict = |machine: &str, out: &str| {
        done(&["predict", "lenet5", "mnist#test", "--samples", "5", "--machine", machine, "-o", out]);
    };
    predict(virtual_machine, paths.0);
    predict(locator, paths.1);
    assert!(std::fs::read(&here).expect("reads") == std::fs::read(&there).expect("reads"), "predictions differ");
    let fit = |machine: &str, out: &str| {
        let data = ["fit", "mlp", "mnist", "--samples", "32", "--batch-size", "12", "--epochs", "1"];
        done(&[&data[..], &["--validation-split", "0.25", "--machine", machine, "-o", out]].concat());
    };
    fit(virtual_machine, paths.0);
    fit(locator, paths.1);
    assert!(std::fs::read(&here).expect("reads") == std::fs::read(&there).expect("reads"), "weights differ");
    let left = json(&["machine", locator]);
    assert_eq!(left["applications"], Value::Array(vec![]), "nothing is left running");
    assert_eq!(left["routes_free_min"], 1023);
}

/// Loads an application by itself: our own, which waits for its start, and ends without a program.
fn applications(locator: &str) {
    let aplx = concat!(env!("CARGO_MANIFEST_DIR"), "/../spidnn-firmware/artefacts/predict.aplx");
    let shown = json(&["app", locator, aplx, "--cores", "0,0:1-2", "--cores", "1,1:3", "--wait", "0.2", "--keep"]);
    let cores = shown["cores"].as_array().expect("a list");
    assert_eq!(cores.len(), 3);
    assert!(cores.iter().all(|core| core["name"] == "spidnn" && core["app_id"] == 17), "{cores:?}");
    // Whoever wants the board is told who has it, and so is who asks for the reason.
    let predict = ["predict", "mlp", "mnist#test", "--samples", "4", "--machine", locator];
    refused(&predict, 1, &["application 17", "--stop 17"]);
    let doctor = json(&["doctor", locator]);
    assert_eq!(doctor["healthy"], false, "{doctor}");
    done(&["app", locator, "--stop", "17"]);
    assert_eq!(json(&["doctor", locator])["healthy"], true);
    assert_eq!(json(&["machine", locator])["applications"], Value::Array(vec![]));
    let here = env!("CARGO_MANIFEST_DIR");
    refused(&["app", locator, &format!("{here}/Cargo.toml"), "--cores", "0,0:1"], 2, &["no application"]);
    refused(&["app", locator, aplx, "--cores", "9,9:1"], 2, &["no working chip 9,9"]);
    refused(&["app", locator, aplx, "--cores", "0,0:0-3"], 2, &["cores are 1 to 17"]);
}

#[test]
fn addresses_without_a_board_are_told_in_time() {
    let began = Instant::now();
    refused(&["machine", "board:127.0.72.1:1"], 1, &["127.0.72.1:1", "nothing listens"]);
    assert!(began.elapsed() < Duration::from_secs(10));
    refused(&["machine", "board:no.such.host.invalid"], 2, &["no such host", "no.such.host.invalid"]);
    let output = spidnn(&["doctor", "board:127.0.72.1:1", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let last = said["checks"].as_array().and_then(|all| all.last()).expect("checks");
    assert_eq!((&last["name"], &last["outcome"]), (&"monitor".into(), &"bad".into()));
    assert!(last["remedy"].as_str().is_some_and(|text| text.contains("spidnn board")), "{last}");
    let app = ["app", "virtual:spin5", "x.aplx", "--cores", "0,0:1"];
    refused(&app, 2, &["fidelity=cycle"]);
}

/// Different in each run on purpose, so that many runs see many moments; no outcome depends on it.
fn some_milliseconds(below: u64) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    Duration::from_millis(random % below)
}

#[test]
fn a_killed_session_leaves_a_board_that_works() {
    let board = Served::start(&["--machine", "virtual:spin3", "--listen", "127.0.76.1:0"]);
    let locator = board.locator();
    let out = |name: &str| file(name).to_str().expect("text").to_string();
    let predict = |machine: &str, out: &str| {
        done(&["predict", "lenet5", "mnist#test", "--samples", "9", "--machine", machine, "-o", out]);
        std::fs::read(out).expect("reads")
    };
    let expected = predict("virtual:spin3", &out("expected.npz"));
    for round in 0..20 {
        // Some train, some predict: killed while they connect, load, run or read.
        let training =
            ["fit", "lenet5", "mnist", "--samples", "480", "--validation-split", "0.1", "--epochs", "9", "--quiet"];
        let predicting = ["predict", "lenet5", "mnist#test", "--samples", "2000", "--quiet"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_spidnn"));
        child.args(if round % 2 == 0 { &training[..] } else { &predicting[..] }).args(["--machine", &locator]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        let wait = some_milliseconds(1500);
        std::thread::sleep(wait);
        child.kill().expect("a process");
        child.wait().expect("ends");
        if round % 5 == 4 {
            assert!(predict(&locator, &out("after.npz")) == expected, "round {round}, killed after {wait:?}");
        }
    }
    assert_eq!(json(&["machine", &locator])["applications"], Value::Array(vec![]));
}

#[test]
#[cfg(unix)]
fn an_interrupted_session_leaves_nothing_behind() {
    let board = Served::start(&["--machine", "virtual:spin3", "--listen", "127.0.77.1:0", "--pace", "1"]);
    let locator = board.locator();
    let mut child = Command::new(env!("CARGO_BIN_EXE_spidnn"));
    child.args(["predict", "lenet5", "mnist#test", "--quiet", "--machine", &locator]).stderr(Stdio::piped());
    let child = child.spawn().expect("starts");
    let began = Instant::now();
    while json(&["machine", &locator])["applications"] == Value::Array(vec![]) {
        assert!(began.elapsed() < Duration::from_secs(60), "it never runs");
    }
    // While it holds the board, others are told who does.
    refused(&["predict", "mlp", "mnist#test", "--machine", &locator], 1, &["in use by process"]);
    interrupt(&child);
    let output = child.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    let left = json(&["machine", &locator]);
    assert_eq!((&left["applications"], &left["routes_free_min"]), (&Value::Array(vec![]), &1023.into()));
}

/// A network of a megabyte, saved for the command.
fn wide_model() -> String {
    use spidnn::{Activation, Dense, Flatten, Input, Model, Sequential};
    let graph = Sequential::new(Input::shape([28, 28, 1]))
        .with(Flatten::new())
        .with(Dense::new(320).activation(Activation::Relu))
        .with(Dense::new(10).activation(Activation::Softmax));
    let path = file("wide.keras");
    Model::untrained(graph.build().expect("a graph"), 5).save(&path).expect("saves");
    path.to_str().expect("text").to_string()
}

/// Starts a prediction, and waits until the program for transfers runs for it.
fn in_a_bulk_load(predict: &[&str], locator: &str) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spidnn"));
    let child = child.args(predict).args(["--quiet", "--machine", locator]).stderr(Stdio::piped()).spawn();
    let began = Instant::now();
    while json(&["machine", locator])["applications"][0]["app_id"] != 31 {
        assert!(began.elapsed() < Duration::from_secs(60), "there are no bulk transfers");
    }
    child.expect("starts")
}

/// On the loopback, with a host's link that loses one datagram of a hundred.
#[test]
#[cfg(unix)]
fn bulk_loads_that_end_in_the_middle_leave_a_board_that_works() {
    let Some(image) = boot_image() else { return };
    let machine = "virtual:spin3?fidelity=cycle&hostdrop=0.01";
    let board =
        Served::start(&["--machine", machine, "--listen", "127.0.79.1:0", "--pace", "fast", "--boot-image", &image]);
    let locator = board.locator();
    wait_until_ready(&locator);
    bulk_transfers(&board);
    let model = wide_model();
    let predict = ["predict", &model, "mnist#test", "--samples", "6"];
    let bits = |machine: &str, name: &str| {
        let out = file(name);
        done(&[&predict[..], &["--machine", machine, "-o", out.to_str().expect("text")]].concat());
        std::fs::read(out).expect("reads")
    };
    let expected = bits("virtual:spin3", "wide-here.npz");
    let nothing = |found: &Value| {
        assert_eq!((&found["applications"], &found["routes_free_min"]), (&Value::Array(vec![]), &1023.into()));
    };

    let mut killed = in_a_bulk_load(&predict, &locator);
    killed.kill().expect("a process");
    killed.wait().expect("ends");
    assert_eq!(json(&["machine", &locator])["applications"][0]["app_id"], 31, "it is killed in the middle");
    assert_eq!(json(&["doctor", &locator])["healthy"], true, "the next session takes it off");
    assert!(bits(&locator, "wide-there.npz") == expected, "after a kill");
    nothing(&json(&["machine", &locator]));

    let interrupted = in_a_bulk_load(&predict, &locator);
    interrupt(&interrupted);
    let began = Instant::now();
    let output = interrupted.wait_with_output().expect("ends");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("interrupted"), "{said}");
    nothing(&json(&["machine", &locator]));
}

/// By sockets: the gate answers to where its messages come from.
fn bulk_transfers(board: &Served) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut boards = Boards::single(board.transceiver().await).await.expect("it answers");
        let mut bulk = Bulk::start(&mut boards, spidnn::firmware::STREAM, AppId(77)).await.expect("starts");
        let data: Vec<u8> = (0..40_000u32).map(|i| (i * 31 / 7 + i / 251) as u8).collect();
        let chips = [ChipAddress::new(0, 0), ChipAddress::new(1, 1)];
        let writes: Vec<_> = chips.iter().map(|chip| (*chip, 0x6100_0000, &data[..])).collect();
        bulk.write_many(&mut boards, &writes).await.expect("writes");
        let places = chips.map(|chip| Place { chip, address: 0x6100_0000, length_bytes: data.len() });
        for back in bulk.read_many(&mut boards, &places).await.expect("reads") {
            assert!(back == data);
        }
        let counts = bulk.counts();
        assert_eq!((counts.written_bytes, counts.read_bytes), (80_000, 80_000), "all by the gate");
        bulk.stop(&mut boards).await.expect("stops");
    });
}

/// As Ctrl-C does.
fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("starts").success());
}

#[test]
#[cfg(unix)]
fn a_boot_that_is_interrupted_ends_soon_and_leaves_a_board_that_boots() {
    let Some(image) = boot_image() else { return };
    // Nobody boots it but the session.
    let board =
        Served::start(&["--machine", "virtual:spin3?fidelity=cycle", "--listen", "127.0.80.1:0", "--pace", "fast"]);
    let locator = board.locator();
    let predict = ["predict", "mlp", "mnist#test", "--samples", "2", "--machine", &locator];
    // The monitor's silence is waited for 4.4 s, then the image is sent.
    for after in [1000, 4600, 5200] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_spidnn"));
        child.args(predict).arg("--quiet").env("SPINNAKER_BOOT_IMAGE", &image).stderr(Stdio::piped());
        let child = child.spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(after));
        interrupt(&child);
        let began = Instant::now();
        let output = child.wait_with_output().expect("ends");
        assert!(began.elapsed() < Duration::from_secs(5), "{after} ms: {:?}", began.elapsed());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("interrupted"), "{after} ms: {said}");
    }
    let output = spidnn_booting(&predict, &image);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn spidnn_booting(args: &[&str], image: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spidnn"));
    command.args(args).arg("--quiet").env("SPINNAKER_BOOT_IMAGE", image).output().expect("starts")
}
