//! `spidnn stream` as scripts and the network see it.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

fn spidnn(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_spidnn")).args(args).output().expect("starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("ends"), text(output.stdout), text(output.stderr))
}

fn json(args: &[&str]) -> Value {
    let (status, out, err) = spidnn(&[args, &["--json"]].concat());
    assert_eq!(status, 0, "{args:?}: {err}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
}

const SPIN3: [&str; 2] = ["--machine", "virtual:spin3"];

#[test]
fn a_stream_gives_what_predict_gives_and_how_long_it_took() {
    let model = ["lenet1", "mnist#test", "--samples", "11"];
    let predicted = json(&[&["predict"], &model[..], &SPIN3].concat());
    let fast = json(&[&["stream"], &model[..], &SPIN3].concat());
    assert_eq!(fast["outputs"], predicted["outputs"]);
    assert_eq!(fast["samples"], 11);
    let slow = json(&[&["stream"], &model[..], &SPIN3, &["--rate", "20"]].concat());
    assert_eq!(slow["outputs"], predicted["outputs"]);
    let figure = |answer: &Value, name: &str| answer["stream"][name].as_f64().expect("a figure");
    // Ten intervals of 50 ms, and the last answer.
    assert!((0.5..0.55).contains(&figure(&slow, "time_s")), "{}", slow["stream"]);
    assert!(figure(&fast, "throughput_hz") > 10.0 * figure(&slow, "throughput_hz"));
    let latency = |name: &str| slow["stream"]["latency_s"][name].as_f64().expect("a latency");
    assert!(latency("median") > 0.0 && latency("median") <= latency("p99") && latency("p99") <= latency("max"));
    // The same again is the same.
    assert_eq!(json(&[&["stream"], &model[..], &SPIN3].concat())["stream"], fast["stream"]);
}

#[test]
fn what_makes_no_sense_is_told() {
    for (args, word) in [
        (&["stream", "lenet1"][..], "INPUTS"),
        (&["stream", "lenet1", "mnist#test", "--rate", "0"], "more than 0"),
        (&["stream", "lenet1", "mnist#test", "--send", "127.0.0.1:1"], "--listen"),
        (&["stream", "lenet1", "--listen", "127.0.0.1:0", "--keys", "3"], "784 elements"),
        (&["stream", "lenet1", "--listen", "127.0.0.1:0", "--lost", "never"], "report, resend"),
        (&["stream", "lenet1", "--listen", "127.0.0.1:0", "--sdp", "3"], "a tag and a port"),
        (&["stream", "lenet1", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"], "1 inputs"),
    ] {
        let (status, out, err) = spidnn(args);
        let text: String = err.split_whitespace().filter(|w| *w != "│").collect::<Vec<_>>().join(" ");
        assert_eq!((status, out.as_str()), (2, ""), "{args:?}: {text}");
        assert!(text.contains(word), "{args:?}: no `{word}` in {text}");
    }
}

/// An EIEIO packet of 32-bit keys and payloads as protocols.md has it: count, 0x0C, then little-endian pairs.
fn eieio(items: &[(u32, f32)]) -> Vec<u8> {
    let mut bytes = vec![items.len() as u8, 0x0C];
    for (key, value) in items {
        bytes.extend(key.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

#[test]
fn datagrams_in_and_datagrams_out() {
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port");
    receiver.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let to = receiver.local_addr().expect("an address").to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_spidnn"))
        .args(["stream", "lenet1", "--listen", "127.0.0.1:0", "--send", &to, "--json", "--keys", "0x50000000"])
        .args(["--samples", "2", "--patience", "20000", "--quiet"])
        .args(SPIN3)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    let line: Value = serde_json::from_str(&line).expect("JSON");
    let address = line["listen"][0].as_str().expect("an address").to_string();
    // Two blank images, the pixels of the first backwards: 1,024 keys for the 784 pixels of each.
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let pixels: Vec<(u32, f32)> =
        (0..784).rev().map(|i| (i, 0.0)).chain((0..784).map(|i| (1 << 10 | i, 0.0))).collect();
    for part in pixels.chunks(31) {
        let part: Vec<(u32, f32)> = part.iter().map(|(key, value)| (0x5000_0000 | key, *value)).collect();
        sender.send_to(&eieio(&part), &address).expect("sends");
    }
    // A time stamp (bit 12) and ten values for each: 16 keys for ten classes.
    for sample in 0..2u32 {
        let mut buffer = [0; 512];
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a word"));
        let bytes = receiver.recv(&mut buffer).expect("an answer");
        assert_eq!((bytes, &buffer[..2]), (18, &[2, 0x1C][..]));
        assert_eq!(word(&buffer, 2), 0x5000_0000 | sample << 4);
        assert!(word(&buffer, 6) > word(&buffer, 14), "answered after it was pushed");
        let bytes = receiver.recv(&mut buffer).expect("an answer");
        assert_eq!((bytes, &buffer[..2]), (82, &[10, 0x0C][..]));
        let values: Vec<f32> = (0..10).map(|i| f32::from_bits(word(&buffer, 6 + 8 * i))).collect();
        assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{values:?}");
    }
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("text");
    let answer: Value = serde_json::from_str(&rest).expect("JSON");
    assert!(child.wait().expect("ends").success());
    assert_eq!((&answer["samples"], &answer["stream"]["lost"]), (&2.into(), &0.into()));
    assert_eq!(answer["stream"]["udp"]["received"], 51);
}
