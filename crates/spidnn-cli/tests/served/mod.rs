//! `spidnn board` as a process of a test, and the image that it boots.
#![allow(dead_code, reason = "each test uses its part")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use spinnaker_host::Transceiver;

/// A running command; it ends with the test.
pub struct Served {
    child: Child,
    /// What it said first.
    pub line: Value,
}

impl Served {
    /// Starts it, and reads its first line.
    pub fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_spidnn"))
            .args(["board", "--json"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let line = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        Self { child, line }
    }

    /// It as a machine.
    pub fn locator(&self) -> String {
        format!(
            "board:{}:{}?boot_port={}&version=3",
            self.line["address"].as_str().expect("an address"),
            self.line["scp_port"],
            self.line["boot_port"]
        )
    }

    /// A connection to it.
    pub async fn transceiver(&self) -> Transceiver<spinnaker_host::UdpLink> {
        let port = |name: &str| self.line[name].as_u64().expect("a port") as u16;
        let address = self.line["address"].as_str().expect("an address");
        Transceiver::connect_ports(address, port("scp_port"), port("boot_port")).await.expect("sockets")
    }

    /// Says a word, and everything that it has said on standard error when it has ended.
    pub fn quit(mut self, words: &str) -> String {
        self.child.stdin.take().expect("piped").write_all(words.as_bytes()).expect("it listens");
        let child = std::mem::replace(&mut self.child, Command::new("true").spawn().expect("starts"));
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty(), "one line is all");
        String::from_utf8(output.stderr).expect("text")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The file of the official boot image, if there is one.
pub fn boot_image() -> Option<String> {
    match spidnn::boot_image::path() {
        Ok(path) if path.exists() => Some(path.display().to_string()),
        _ => {
            println!("not run: no official boot image (SPINNAKER_BOOT_IMAGE, or an installed SpiNNMan)");
            None
        }
    }
}
