//! `spalloc:` machines: a scripted server of the classic protocol in front of virtual boards.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

mod served;
use served::{Served, boot_image};

/// What a server was asked, and how many jobs live.
#[derive(Default)]
struct Book {
    created: AtomicU32,
    destroyed: AtomicU32,
    /// Jobs wait for their boards.
    is_full: AtomicBool,
    /// Taken away by the server, and why.
    reason: Mutex<Option<String>>,
}

/// A server that gives one machine; its port.
fn serve(book: Arc<Book>, width: u32, height: u32, connections: Value) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (book, connections) = (Arc::clone(&book), connections.clone());
            std::thread::spawn(move || answer(stream, &book, width, height, &connections));
        }
    });
    port
}

fn answer(stream: TcpStream, book: &Book, width: u32, height: u32, connections: &Value) {
    let mut out = stream.try_clone().expect("a socket");
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let request: Value = serde_json::from_str(&line).expect("an object");
        let reason = book.reason.lock().expect("whole").clone();
        let value = match request["command"].as_str().expect("a command") {
            "version" => json!("1!7.0.0"),
            "create_job" => {
                assert_eq!(request["kwargs"]["owner"], "tester");
                json!(book.created.fetch_add(1, Ordering::SeqCst) + 1)
            }
            "get_job_state" => match reason {
                Some(reason) => {
                    json!({ "state": 4, "power": null, "keepalive": 60.0, "reason": reason, "start_time": 0.0 })
                }
                None if book.is_full.load(Ordering::SeqCst) => {
                    json!({ "state": 1, "power": null, "keepalive": 60.0, "reason": null, "start_time": 0.0 })
                }
                None => json!({ "state": 3, "power": true, "keepalive": 60.0, "reason": null, "start_time": 0.0 }),
            },
            "get_job_machine_info" => json!({
                "width": width, "height": height, "connections": connections, "machine_name": "row",
                "boards": connections.as_array().expect("a list").iter().enumerate().map(|(z, _)| json!([0, 0, z])).collect::<Vec<_>>(),
            }),
            "destroy_job" => {
                book.destroyed.fetch_add(1, Ordering::SeqCst);
                Value::Null
            }
            "list_machines" => {
                json!([{ "name": "row", "tags": ["default"], "width": 1, "height": 1, "dead_boards": [], "dead_links": [] }])
            }
            "list_jobs" => json!([]),
            _ => Value::Null,
        };
        if writeln!(out, "{}", json!({ "return": value })).is_err() {
            return;
        }
    }
}

fn spidnn(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_spidnn")).args(args).arg("--quiet").output().expect("starts")
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).replace("│ ", "").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn three_boards_of_a_server_are_one_machine() {
    let boards = Served::start(&["--machine", "virtual:3boards", "--listen", "127.0.74.1", "--pace", "fast"]);
    let book = Arc::new(Book::default());
    let connections = json!([[[0, 0], "127.0.74.1"], [[4, 8], "127.0.74.2"], [[8, 4], "127.0.74.3"]]);
    let port = serve(Arc::clone(&book), 12, 12, connections);
    let locator = format!("spalloc:127.0.0.1:{port}?boards=3&owner=tester");

    let output = spidnn(&["machine", &locator, "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
    assert_eq!((&found["chip_count"], &found["boards"]), (&144.into(), &3.into()));
    let doctor = spidnn(&["doctor", &locator, "--json"]);
    let doctor: Value = serde_json::from_slice(&doctor.stdout).expect("an object");
    let names: Vec<&str> =
        doctor["checks"].as_array().expect("checks").iter().filter_map(|c| c["name"].as_str()).collect();
    assert!(names.starts_with(&["request", "server", "machines", "jobs"]), "{doctor}");

    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_string();
    let predict = |machine: &str, out: &str| {
        let output = spidnn(&["predict", "lenet5", "mnist#test", "--samples", "150", "--machine", machine, "-o", out]);
        assert!(output.status.success(), "{}", said(&output));
        std::fs::read(out).expect("reads")
    };
    assert!(predict(&locator, &path("a.npz")) == predict("virtual:spin5", &path("b.npz")), "predictions differ");
    let count = (book.created.load(Ordering::SeqCst), book.destroyed.load(Ordering::SeqCst));
    assert_eq!(count, (2, 2), "every job is given back");
    drop(boards);
}

#[test]
fn boards_that_are_taken_away_end_the_run_with_the_reason() {
    let boards = Served::start(&["--machine", "virtual:spin5", "--listen", "127.0.75.1"]);
    let book = Arc::new(Book::default());
    let port = serve(Arc::clone(&book), 8, 8, json!([[[0, 0], "127.0.75.1"]]));
    let taken = Arc::clone(&book);
    std::thread::spawn(move || {
        while taken.created.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_secs(2));
        *taken.reason.lock().expect("whole") = Some("somebody needs them".into());
    });
    let began = Instant::now();
    let locator = format!("spalloc:127.0.0.1:{port}?owner=tester&keepalive=10");
    // Epochs enough for minutes.
    let output = spidnn(&["fit", "lenet5", "mnist", "--epochs", "1000", "--machine", &locator]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("somebody needs them"), "{}", said(&output));
    assert!(began.elapsed() < Duration::from_secs(60));
    drop(boards);
}

/// Interrupts a prediction some time after its job was created; the job is given back by its end, which comes soon.
#[cfg(unix)]
fn interrupted(book: &Book, locator: &str, after: Duration) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spidnn"));
    child.args(["predict", "mlp", "mnist#test", "--quiet", "--machine", locator]);
    let child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let began = Instant::now();
    while book.created.load(Ordering::SeqCst) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "it asks for nothing");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(after);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("starts").success());
    let began = Instant::now();
    let output = child.wait_with_output().expect("ends");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("interrupted"), "{}", said(&output));
    let count = (book.created.load(Ordering::SeqCst), book.destroyed.load(Ordering::SeqCst));
    assert_eq!(count, (1, 1), "the job is given back");
}

#[test]
#[cfg(unix)]
fn an_interrupt_ends_the_wait_for_boards() {
    let book = Arc::new(Book::default());
    book.is_full.store(true, Ordering::SeqCst);
    let port = serve(Arc::clone(&book), 8, 8, json!([[[0, 0], "127.0.81.1"]]));
    interrupted(&book, &format!("spalloc:127.0.0.1:{port}?owner=tester"), Duration::from_millis(500));
}

#[test]
#[cfg(unix)]
fn an_interrupt_ends_the_boot_of_allocated_boards() {
    // A board that takes all and says nothing.
    let _sockets = [17893, 54321].map(|port| UdpSocket::bind(("127.0.82.1", port)).expect("a port"));
    // The silence is waited for 4.4 s, then an image is sent, if there is one.
    let moments: &[u64] = if boot_image().is_some() { &[1000, 5500] } else { &[1000] };
    for &after in moments {
        let book = Arc::new(Book::default());
        let port = serve(Arc::clone(&book), 8, 8, json!([[[0, 0], "127.0.82.1"]]));
        interrupted(&book, &format!("spalloc:127.0.0.1:{port}?owner=tester"), Duration::from_millis(after));
    }
}
