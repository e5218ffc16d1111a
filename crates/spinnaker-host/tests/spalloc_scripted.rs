//! What a classic allocation server should not do, done by one that follows a script.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spinnaker_host::spalloc::classic::{Client, JobId};
use spinnaker_host::spalloc::{Job, JobRequest, Server, SpallocError, Want};
use spinnaker_wire::ChipAddress;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

/// What the server does about a command.
enum Reply {
    /// Sends `{"return": ..}`.
    Return(Value),
    /// Sends these bytes.
    Raw(Vec<u8>),
    /// Sends these bytes and closes the connection.
    Last(Vec<u8>),
    /// Does nothing.
    Silence,
}

fn raw(text: &str) -> Reply {
    Reply::Raw(text.as_bytes().to_vec())
}

/// Serves on a port by a script, which gets the number of the connection and the command's name and arguments. On a thread of its own:
/// dropped jobs wait for the server.
fn serve(script: impl Fn(usize, &str, &Value) -> Reply + Send + Sync + 'static) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let script = Arc::new(script);
    thread::spawn(move || {
        for (connection, stream) in listener.incoming().enumerate() {
            let script = script.clone();
            thread::spawn(move || {
                talk(stream.expect("a connection"), |command, arguments| script(connection, command, arguments))
            });
        }
    });
    port
}

fn talk(mut stream: TcpStream, script: impl Fn(&str, &Value) -> Reply) {
    let lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
    for line in lines.map_while(Result::ok) {
        let command: Value = serde_json::from_str(&line).expect("the client sends JSON");
        let (bytes, last) = match script(command["command"].as_str().expect("a name"), &command["args"]) {
            Reply::Return(value) => (format!("{}\n", json!({ "return": value })).into_bytes(), false),
            Reply::Raw(bytes) => (bytes, false),
            Reply::Last(bytes) => (bytes, true),
            Reply::Silence => continue,
        };
        if stream.write_all(&bytes).is_err() || last {
            return;
        }
    }
}

fn at(port: u16) -> Server {
    Server::Classic { host: "127.0.0.1".to_owned(), port }
}

fn request() -> JobRequest {
    JobRequest { keepalive: Some(Duration::from_secs(1)), ..JobRequest::for_owner(Want::Boards(1), "tester") }
}

fn machine(host: &str) -> Value {
    json!({
        "width": 8, "height": 8, "connections": [[[0, 0], host]], "machine_name": "m", "boards": [[0, 0, 0]],
        "a_key_of_the_future": {}
    })
}

fn ready() -> Value {
    json!({ "state": 3, "power": true, "keepalive": 1.0, "reason": null, "start_time": 1.5, "keepalivehost": "h" })
}

/// A server that does all as it should.
fn good(command: &str) -> Reply {
    Reply::Return(match command {
        "version" => json!("1.0.0"),
        "create_job" => json!(12),
        "get_job_state" => ready(),
        "get_job_machine_info" => machine("127.0.0.1"),
        _ => Value::Null,
    })
}

async fn create(port: u16) -> Result<Job, SpallocError> {
    let (at, request) = (at(port), request());
    timeout(Duration::from_secs(25), Job::create(&at, &request, |_| {})).await.expect("every wait has a bound")
}

#[tokio::test(flavor = "current_thread")]
async fn versions_are_understood_or_named() {
    for (spelling, understood) in [
        (json!("0.1.0"), true),
        (json!("1!7.0.0"), true),
        (json!("5.0.0.dev1+g123"), true),
        (json!("v6.1"), true),
        (json!("0.0.9"), false),
        (json!("1!8.0.0"), false),
        (json!("SpiNNaker"), false),
    ] {
        let shown = spelling.as_str().expect("text").to_owned();
        let port = serve(move |_, _, _| Reply::Return(spelling.clone()));
        match Client::connect("127.0.0.1", port).await {
            Ok(_) => assert!(understood, "{shown}"),
            Err(error) => {
                let text = error.to_string();
                assert!(!understood && matches!(error, SpallocError::Version { .. }), "{shown}: {text}");
                assert!(text.contains(&shown) && text.contains("0.1.0 up to 7.x"), "{text}");
            }
        }
    }
    for (odd, part) in [(json!(7), "`7`"), (json!(null), "`null`"), (json!([1, 2]), "`[1,2]`")] {
        let port = serve(move |_, _, _| Reply::Return(odd.clone()));
        let error = Client::connect("127.0.0.1", port).await.err().expect("no version").to_string();
        assert!(error.contains(part) && error.contains("a version"), "{error}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_no_answer_is_shown() {
    let check = async |reply: fn() -> Reply, part: &str| {
        let port = serve(move |_, command, _| if command == "version" { good("version") } else { reply() });
        let mut client = Client::connect("127.0.0.1", port).await.expect("a version");
        let error = client.create_job(&request()).await.expect_err(part);
        assert!(error.to_string().contains(part), "{error} lacks {part}");
        assert!(client.get_job_state(JobId(1)).await.is_err());
    };
    check(|| raw("HTTP/1.1 400 Bad Request\r\n"), "`HTTP/1.1 400 Bad Request").await;
    check(|| raw("\n"), "answers `create_job` with nothing").await;
    check(|| raw("{}\n"), "`{}`").await;
    check(|| raw("[1]\n"), "`[1]`").await;
    check(|| raw("{\"return\": \"twelve\"}\n"), "twelve").await;
    check(|| raw("{\"return\": -3}\n"), "-3").await;
    check(|| raw("{\"jobs_changed\": [{}]}\n"), "jobs_changed").await;
    check(|| Reply::Raw(vec![0xFF, 0xFE, 0x00, b'\n']), "`...`").await;
    check(|| raw(&format!("{}\n", "[".repeat(100_000))), "`[[[[").await;
    check(|| raw("{\"exception\": \"owner must be specified\"}\n"), "refuses `create_job`: owner must be specified")
        .await;
    check(|| Reply::Last(b"{\"return\": 1".to_vec()), "closed the connection during `create_job`").await;
    check(|| Reply::Last(Vec::new()), "closed the connection").await;
    check(|| Reply::Raw(vec![b'x'; 9 << 20]), "a line of more than 8388608 bytes").await;
}

#[tokio::test(flavor = "current_thread")]
async fn notifications_may_come_at_any_time() {
    let port = serve(|_, command, _| {
        let answer = match good(command) {
            Reply::Return(value) => json!({ "return": value }),
            _ => unreachable!("it answers"),
        };
        raw(&format!(
            "{{\"jobs_changed\": [1, 12]}}\n{{\"machines_changed\": [\"m\"]}}\n{answer}\n{{\"jobs_changed\": []}}\n"
        ))
    });
    let mut job = create(port).await.expect("all is well");
    assert_eq!(job.machine_info().boards[0].host, "127.0.0.1");
    job.destroy("done").await.expect("heard");
}

#[tokio::test(flavor = "current_thread")]
async fn servers_that_are_not_there_or_silent() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let error = create(nobody).await.expect_err("nobody");
    assert!(matches!(error, SpallocError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{nobody}")), "{error}");
    let error = Client::connect("no-such-host.invalid", 22244).await.err().expect("nobody").to_string();
    assert!(error.contains("no-such-host.invalid:22244"), "{error}");

    let silent = serve(|_, _, _| Reply::Silence);
    let start = Instant::now();
    let error = create(silent).await.expect_err("silent");
    assert!(matches!(&error, SpallocError::Silent { command, .. } if command == "version"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[tokio::test(flavor = "current_thread")]
async fn machines_that_cannot_be_are_named() {
    for (odd, part) in [
        (json!({ "width": 8, "height": 0, "connections": [] }), "8 x 0"),
        (json!({ "width": 8, "height": 8, "connections": [[[0, 0], "a b"]] }), "without an address"),
        (json!({ "width": 8, "height": 8, "connections": [[[0], "a"]] }), "a job's machine"),
        (json!({ "width": null, "height": null, "connections": null }), "the machine of a job that is ready"),
        (json!("none"), "none"),
    ] {
        let port = serve(move |_, command, _| match command {
            "get_job_machine_info" => Reply::Return(odd.clone()),
            _ => good(command),
        });
        let error = create(port).await.expect_err(part);
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_job_that_is_unknown_after_a_restart_is_over() {
    let port = serve(|connection, command, _| match (connection, command) {
        (0, "get_job_machine_info") => {
            // The first connection ends as soon as there are boards.
            Reply::Last(format!("{}\n", json!({ "return": machine("127.0.0.1") })).into_bytes())
        }
        (0, _) => good(command),
        (_, "get_job_state") => Reply::Return(json!({ "state": 0 })),
        _ => good(command),
    });
    let job = create(port).await.expect("a board");
    let error = timeout(Duration::from_secs(10), job.ended()).await.expect("in time");
    assert!(matches!(error, SpallocError::Destroyed { .. }), "{error}");
    assert!(error.to_string().contains("does not know the job any longer"), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn boards_that_get_no_power_are_given_up() {
    let port = serve(|_, command, _| match command {
        "get_job_state" => Reply::Return(json!({ "state": 2, "power": true })),
        _ => good(command),
    });
    let request = JobRequest { power_timeout: Duration::from_millis(200), ..request() };
    let error = Job::create(&at(port), &request, |_| {}).await.expect_err("no power");
    assert!(matches!(error, SpallocError::Power { on: true, .. }), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn datagrams_go_straight_to_the_boards() {
    let port = serve(|_, command, _| good(command));
    let job = create(port).await.expect("a board");
    let board = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let board_port = board.local_addr().expect("an address").port();
    let mut channel = job.connect(ChipAddress::new(0, 0), board_port).await.expect("a way");
    channel.send(b"hello").await.expect("sent");
    let mut buffer = [0; 64];
    let (length, from) = board.recv_from(&mut buffer).await.expect("received");
    assert_eq!(&buffer[..length], b"hello");
    board.send_to(b"you too", from).await.expect("sent");
    assert_eq!(channel.receive().await.expect("received"), b"you too");

    let mut listener = job.listen().await.expect("a way");
    let (_, listener_port) = listener.address();
    let stranger = UdpSocket::bind("127.0.0.2:0").await.expect("a port");
    stranger.send_to(b"listen to me", ("127.0.0.1", listener_port)).await.expect("sent");
    listener.send_to(b"any", ChipAddress::new(0, 0), board_port).await.expect("sent");
    let (_, from) = board.recv_from(&mut buffer).await.expect("received");
    assert_eq!(from.port(), listener_port);
    board.send_to(b"spikes", ("127.0.0.1", listener_port)).await.expect("sent");
    assert_eq!(listener.receive().await.expect("received"), b"spikes");

    let error = job.connect(ChipAddress::new(4, 8), 1).await.expect_err("no such board").to_string();
    assert!(error.contains("no board at chip 4,8") && error.contains("0,0"), "{error}");
}
