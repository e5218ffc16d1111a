//! Jobs at the newer allocation service, played by one in this process: HTTP with login, and UDP through a WebSocket.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use spinnaker_host::spalloc::{Job, JobRequest, Login, Server, SpallocError, Want};
use spinnaker_wire::ChipAddress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

const LONG: Duration = Duration::from_secs(20);
/// What answers refer to: the site as it is called from outside, behind some other server.
const OUTSIDE: &str = "https://outside.invalid/spalloc";

/// What the service knows, and what it was asked.
struct Service {
    state: &'static str,
    reason: Option<&'static str>,
    /// The session that is logged in; another one each time.
    session: u32,
    logins: u32,
    powers: Vec<Value>,
    created: Option<Value>,
    keepalives: u32,
    destroyed: Option<String>,
    /// Closes the WebSocket at the next datagram.
    cut: bool,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Service>>);

impl Shared {
    fn get(&self) -> MutexGuard<'_, Service> {
        self.0.lock().expect("no test panics with it")
    }
}

/// Starts the service; its URL.
fn start() -> (Shared, String) {
    let shared = Shared(Arc::new(Mutex::new(Service {
        state: "READY",
        reason: None,
        session: 100,
        logins: 0,
        powers: Vec::new(),
        created: None,
        keepalives: 0,
        destroyed: None,
        cut: false,
    })));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/spalloc", listener.local_addr().expect("an address"));
    listener.set_nonblocking(true).expect("a socket");
    let service = shared.clone();
    // On a thread of its own: dropped jobs wait for the server.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, service.clone()));
            }
        });
    });
    (shared, url)
}

fn server(url: &str) -> Server {
    let login = Login::Password { user: "me".to_owned(), password: "p&ss wörd".to_owned() };
    Server::Service { url: url.to_owned(), login }
}

fn request() -> JobRequest {
    JobRequest::for_owner(Want::Boards(3), "tester")
}

async fn talk(mut stream: TcpStream, shared: Shared) {
    let mut start = [0; 1024];
    let length = stream.peek(&mut start).await.unwrap_or(0);
    if start[..length].starts_with(b"GET /spalloc/proxy/") {
        return datagrams(stream, shared).await;
    }
    let mut bytes = Vec::new();
    let (head_bytes, content_bytes) = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |n| n.parse().expect("a number"));
            if bytes.len() >= at + 4 + length {
                break (at, length);
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8(bytes[..head_bytes].to_vec()).expect("text");
    let mut lines = head.lines();
    let first: Vec<String> = lines.next().expect("a line").split(' ').map(str::to_owned).collect();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let body = String::from_utf8(bytes[head_bytes + 4..head_bytes + 4 + content_bytes].to_vec()).expect("text");
    let (status, more, answer) = answer(&shared, &first[0], &first[1], &headers, &body);
    let text =
        format!("HTTP/1.1 {status} x\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{answer}", answer.len());
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Status, headers and body.
fn answer(
    shared: &Shared,
    method: &str,
    path: &str,
    headers: &BTreeMap<String, String>,
    body: &str,
) -> (u16, String, String) {
    let mut service = shared.get();
    let plain = |status: u16, body: Value| (status, String::new(), body.to_string());
    let cookie = headers.get("cookie").cloned().unwrap_or_default();
    match (method, path) {
        ("GET", "/spalloc/system/login.html") => {
            let form = "<form>\n<input type=\"hidden\" name=\"_csrf\" value=\"form-token\" />\n<input name=\"username\"/></form>";
            return (200, "Set-Cookie: JSESSIONID=visitor; Path=/; HttpOnly\r\n".to_owned(), form.to_owned());
        }
        ("POST", "/spalloc/system/perform_login") => {
            let expected = "_csrf=form-token&username=me&password=p%26ss+w%C3%B6rd&submit=submit";
            if body != expected || cookie != "JSESSIONID=visitor" {
                return plain(401, json!({ "message": "Bad credentials" }));
            }
            service.session += 1;
            service.logins += 1;
            return (
                302,
                format!("Set-Cookie: JSESSIONID=s{}; Path=/\r\nLocation: /\r\n", service.session),
                String::new(),
            );
        }
        _ => {}
    }
    if cookie != format!("JSESSIONID=s{}", service.session) {
        return match method {
            "PUT" => plain(401, json!({ "message": "Log in" })),
            _ => (302, "Location: /spalloc/system/login.html\r\n".to_owned(), String::new()),
        };
    }
    if method != "GET" && headers.get("x-csrf-token").map(String::as_str) != Some("api-token") {
        return plain(403, json!({ "message": "Forged" }));
    }
    let Some(path) = path.strip_prefix("/spalloc/srv/spalloc/") else { return plain(404, json!({})) };
    match (method, path) {
        ("GET", "") => plain(
            200,
            json!({
                "version": { "major-version": 7, "minor-version": 0, "revision": 1 },
                "jobs-ref": format!("{OUTSIDE}/srv/spalloc/jobs"), "machines-ref": format!("{OUTSIDE}/srv/spalloc/machines"),
                "csrf-header": "X-CSRF-TOKEN", "csrf-token": "api-token"
            }),
        ),
        ("GET", "machines/") => {
            plain(200, json!({ "machines": [{ "name": "big", "tags": ["default"], "width": 2, "height": 1 }] }))
        }
        ("POST", "jobs/") => {
            let wanted: Value = serde_json::from_str(body).expect("JSON");
            if wanted["num-boards"] == json!(300) {
                return plain(400, json!({ "message": "no machine available which is big enough" }));
            }
            service.created = Some(wanted);
            (201, format!("Location: {OUTSIDE}/srv/spalloc/jobs/7\r\n"), String::new())
        }
        ("GET", "jobs/7/") if service.state == "GONE" => plain(404, json!({})),
        ("GET", "jobs/7/") => plain(
            200,
            json!({
                "state": service.state, "owner": "me", "reason": service.reason, "start-time": "2021-01-01T00:00:00Z",
                "proxy-ref": "wss://outside.invalid/spalloc/proxy/7"
            }),
        ),
        ("PUT", "jobs/7/keepalive") => {
            service.keepalives += 1;
            plain(200, json!({}))
        }
        ("GET", "jobs/7/machine") => plain(
            200,
            json!({
                "width": 1, "height": 1, "depth": 3, "machine-name": "big", "machine-ref": OUTSIDE,
                "connections": [[[0, 0], "10.0.0.1"], [[8, 4], "10.0.0.9"], [[4, 8], "10.0.0.17"]],
                "boards": [{ "x": 0, "y": 0, "z": 0 }, { "x": 0, "y": 0, "z": 1 }, { "x": 0, "y": 0, "z": 2 }]
            }),
        ),
        ("PUT", "jobs/7/machine/power") => {
            service.powers.push(serde_json::from_str(body).expect("JSON"));
            plain(200, json!({}))
        }
        ("DELETE", path) if path.starts_with("jobs/7/?reason=") => {
            service.destroyed = Some(path["jobs/7/?reason=".len()..].to_owned());
            (204, String::new(), String::new())
        }
        _ => plain(404, json!({ "message": format!("no {method} of {path}") })),
    }
}

fn frame(words: &[u32], rest: &[u8]) -> Message {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).chain(rest.iter().copied()).collect();
    Message::Binary(bytes.into())
}

/// The WebSocket. Boards send each datagram back with their port in front of it.
async fn datagrams(stream: TcpStream, shared: Shared) {
    let session = format!("JSESSIONID=s{}", shared.get().session);
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let check = |request: &Request, response: Response| {
        assert_eq!(request.headers()["cookie"], session.as_str());
        assert_eq!(request.headers()["x-csrf-token"], "api-token");
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, check).await.expect("a WebSocket");
    // What concerns nobody is ignored.
    for odd in [
        frame(&[2], &[]),
        frame(&[], &[1, 2, 3]),
        frame(&[2, 99], b"stray"),
        frame(&[77, 1, 2], &[]),
        Message::Text("hi".into()),
    ] {
        socket.send(odd).await.expect("sent");
    }
    let mut ports = BTreeMap::new();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else { continue };
        let word = |n: usize| u32::from_le_bytes(bytes[4 * n..4 * n + 4].try_into().expect("four"));
        let reply = match word(0) {
            0 if (word(2), word(3)) == (8, 4) => frame(&[5, word(1)], b"that board is away"),
            0 => {
                let channel = 40 + ports.len() as u32;
                ports.insert(channel, word(4));
                frame(&[0, word(1), channel], &[])
            }
            1 => {
                ports.remove(&word(2));
                frame(&[1, word(1), word(2)], &[])
            }
            2 if shared.get().cut => return,
            2 => frame(&[2, word(1), ports[&word(1)]], &bytes[8..]),
            3 => frame(&[3, word(1), 90, u32::from_le_bytes([10, 0, 0, 2]), 50_000], &[]),
            4 => frame(&[2, word(1), word(4)], &bytes[20..]),
            other => panic!("no frame {other}"),
        };
        socket.send(reply).await.expect("sent");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_job_lives_at_the_service() {
    let (service, url) = start();
    let mut wanted = request();
    wanted.machine = Some("big".to_owned());
    let mut job = Job::create(&server(&url), &wanted, |_| {}).await.expect("boards");
    assert_eq!(job.id(), format!("{url}/srv/spalloc/jobs/7/"));
    let created = service.get().created.clone();
    let expected = json!({
        "num-boards": 3, "owner": "tester", "machine-name": "big", "max-dead-boards": 0, "keepalive-interval": "PT60S"
    });
    assert_eq!(created, Some(expected));
    let machine = job.machine_info();
    // 1 triad of 2 x 1 wraps in y alone.
    assert_eq!((machine.width_chips, machine.height_chips, machine.wraps_x, machine.wraps_y), (16, 12, false, true));
    let chips: Vec<_> =
        machine.boards.iter().map(|board| (board.chip.x(), board.chip.y(), board.host.as_str())).collect();
    assert_eq!(chips, [(0, 0, "10.0.0.1"), (4, 8, "10.0.0.17"), (8, 4, "10.0.0.9")]);
    assert_eq!(machine.places.len(), 3);
    job.power(false).await.expect("heard");
    assert_eq!(service.get().powers, [json!({ "power": "OFF" })]);
    assert!(service.get().keepalives >= 1);

    // An expired session is renewed.
    service.get().session += 1;
    job.power(true).await.expect("heard");
    assert_eq!(service.get().logins, 2);
    service.get().session += 1;
    job.destroy("all done & well").await.expect("heard");
    assert_eq!(service.get().destroyed.as_deref(), Some("all+done+%26+well"));
}

#[tokio::test(flavor = "current_thread")]
async fn datagrams_go_through_the_service() {
    let (service, url) = start();
    let job = Job::create(&server(&url), &request(), |_| {}).await.expect("boards");
    let mut root = job.connect(ChipAddress::new(0, 0), 17893).await.expect("a channel");
    let mut other = job.connect(ChipAddress::new(4, 8), 54321).await.expect("a channel");
    let with_port = |port: u32, rest: &[u8]| [port.to_le_bytes().as_slice(), rest].concat();
    for n in 0..200_u8 {
        root.send(&[n]).await.expect("sent");
        other.send(&[n, n]).await.expect("sent");
    }
    for n in 0..200_u8 {
        assert_eq!(
            timeout(LONG, other.receive()).await.expect("in time").expect("received"),
            with_port(54321, &[n, n])
        );
        assert_eq!(timeout(LONG, root.receive()).await.expect("in time").expect("received"), with_port(17893, &[n]));
    }
    let error = job.connect(ChipAddress::new(8, 4), 17893).await.expect_err("refused");
    assert!(error.to_string().contains("that board is away"), "{error}");

    let mut listener = job.listen().await.expect("a channel");
    assert_eq!(listener.address(), ([10, 0, 0, 2].into(), 50_000));
    listener.send_to(b"spikes", ChipAddress::new(4, 8), 17893).await.expect("sent");
    assert_eq!(
        timeout(LONG, listener.receive()).await.expect("in time").expect("received"),
        with_port(17893, b"spikes")
    );

    // A WebSocket that breaks is an error at its channels, and another is made for new ones.
    service.get().cut = true;
    root.send(b"cut").await.expect("sent");
    let error = timeout(LONG, root.receive()).await.expect("in time").expect_err("closed");
    assert!(matches!(error, SpallocError::Proxy { .. }), "{error}");
    service.get().cut = false;
    let mut again = job.connect(ChipAddress::new(0, 0), 17893).await.expect("a channel");
    again.send(b"hello").await.expect("sent");
    assert_eq!(timeout(LONG, again.receive()).await.expect("in time").expect("received"), with_port(17893, b"hello"));
    drop(job);
    assert_eq!(service.get().destroyed.as_deref(), Some("the+client+has+let+go+of+it"));
}

/// Not a test by itself: what the next test runs in another process, which trusts the certificate.
#[tokio::test(flavor = "current_thread")]
async fn a_client_that_trusts() {
    let Ok(url) = std::env::var("SPALLOC_TEST_TLS") else { return };
    let mut job = Job::create(&server(&url), &request(), |_| {}).await.expect("boards");
    let mut root = job.connect(ChipAddress::new(0, 0), 17893).await.expect("a channel");
    root.send(b"hello").await.expect("sent");
    assert!(timeout(LONG, root.receive()).await.expect("in time").expect("received").ends_with(b"hello"));
    job.destroy("by TLS").await.expect("heard");
}

#[tokio::test(flavor = "current_thread")]
async fn services_by_tls_need_a_trusted_certificate() {
    let (service, url) = start();
    let inside = url.split('/').nth(2).expect("a host").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://localhost:{}/spalloc", listener.local_addr().expect("an address").port());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, inside) = (acceptor.clone(), inside.clone());
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(inside).await.expect("the service");
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    let error = Job::create(&server(&url), &request(), |_| {}).await.expect_err("a stranger").to_string();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(service.get().logins, 0, "no password went out");

    let folder = tempfile::tempdir().expect("a folder");
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, made.cert.pem()).expect("a file");
    let mut child = Command::new(std::env::current_exe().expect("a path"));
    child.args(["--exact", "a_client_that_trusts"]).env("SPALLOC_TEST_TLS", url).env("SSL_CERT_FILE", trusted);
    let output = tokio::task::spawn_blocking(move || child.output().expect("this program starts")).await.expect("done");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(service.get().destroyed.as_deref(), Some("by+TLS"));
}

#[tokio::test(flavor = "current_thread")]
async fn what_the_service_refuses_is_told() {
    let (service, url) = start();
    let create = async |server: &Server, request: JobRequest| {
        timeout(LONG, Job::create(server, &request, |_| {})).await.expect("in time").expect_err("refused")
    };
    let login = Login::Password { user: "me".to_owned(), password: "wrong".to_owned() };
    let error = create(&Server::Service { url: url.clone(), login }, request()).await;
    assert!(matches!(error, SpallocError::Login { .. }), "{error}");
    assert!(error.to_string().contains("does not let me in: HTTP 401, Bad credentials"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");

    let token = Login::Token("nobody's".to_owned());
    let error = create(&Server::Service { url: url.clone(), login: token }, request()).await;
    assert!(matches!(error, SpallocError::Login { .. }), "{error}");

    let at = server(&url);
    let error = create(&at, JobRequest { want: Want::Boards(300), ..request() }).await;
    assert!(error.to_string().contains("big enough"), "{error}");
    let error = create(&at, JobRequest { machine: Some("small".to_owned()), ..request() }).await;
    assert!(error.to_string().contains("`small`; it has big"), "{error}");
    let error = create(&at, JobRequest { keepalive: None, ..request() }).await;
    assert!(matches!(error, SpallocError::Request(_)), "{error}");

    service.get().state = "DESTROYED";
    service.get().reason = Some("quota used up");
    let error = create(&at, request()).await;
    assert!(matches!(error, SpallocError::Impossible { .. }) && error.to_string().contains("quota used up"), "{error}");
    service.get().state = "GONE";
    let error = create(&at, request()).await;
    assert!(matches!(error, SpallocError::Impossible { .. }), "{error}");
    service.get().state = "DANCING";
    let error = create(&at, request()).await;
    assert!(matches!(error, SpallocError::Protocol { .. }) && error.to_string().contains("DANCING"), "{error}");
    assert!(service.get().destroyed.is_some(), "what is not understood is given up");
    service.get().state = "QUEUED";
    let error = create(&at, JobRequest { queue_timeout: Duration::from_millis(100), ..request() }).await;
    assert!(matches!(error, SpallocError::Queue { .. }), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_no_service_is_told() {
    let create = async |url: String| {
        let at = server(&url);
        let request = request();
        timeout(LONG, Job::create(&at, &request, |_| {})).await.expect("in time").expect_err("no service").to_string()
    };
    // Something else that speaks HTTP, and something that does not.
    for (text, part) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "`hello`"),
        ("SSH-2.0-OpenSSH_9.6\r\n", "by HTTP"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "GET /system/login.html"),
        ("", "GET /system/login.html"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(text.as_bytes());
        });
        let error = create(url).await;
        assert!(error.contains(part), "{error} lacks {part}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let error = create(format!("https://{nobody}")).await;
    assert!(error.contains("no spalloc server at https://127.0.0.1"), "{error}");
}
