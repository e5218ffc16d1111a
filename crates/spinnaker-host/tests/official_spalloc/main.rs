//! Jobs at the official allocation server (package `spalloc_server`), unmodified.

mod server;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use server::{Official, board_host};
use spinnaker_host::spalloc::classic::{Client, JobId, JobState, Notification, Place};
use spinnaker_host::spalloc::{
    BoardPlace, Job, JobRequest, Phase, PhysicalPlace, Server, ServerVersion, SpallocError, Want,
};
use spinnaker_wire::ChipAddress;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Longer than any step takes on a busy computer.
const LONG: Duration = Duration::from_secs(20);

fn at(port: u16) -> Server {
    Server::Classic { host: "127.0.0.1".to_owned(), port }
}

fn request(want: Want) -> JobRequest {
    JobRequest { keepalive: Some(Duration::from_secs(2)), ..JobRequest::for_owner(want, "tester") }
}

async fn client(port: u16) -> Client {
    Client::connect("127.0.0.1", port).await.expect("the server answers")
}

/// Waits until a job is over and gives the reason.
async fn reason(client: &mut Client, job: JobId) -> String {
    let end = Instant::now() + LONG;
    loop {
        let status = client.get_job_state(job).await.expect("a state");
        if status.state == JobState::Destroyed {
            return status.reason.unwrap_or_default();
        }
        assert!(Instant::now() < end, "job {job} is {status:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// As [`reason`], by a list that does not keep the job alive.
async fn gone(client: &mut Client, job: JobId) {
    let end = Instant::now() + LONG;
    while client.list_jobs().await.expect("a list").iter().any(|record| record.job_id == job) {
        assert!(Instant::now() < end, "job {job} lives on");
        sleep(Duration::from_millis(50)).await;
    }
}

fn number(job: &Job) -> JobId {
    JobId(job.id().parse().expect("a number"))
}

#[tokio::test(flavor = "current_thread")]
async fn three_boards_are_one_machine() {
    let Some(server) = Official::start() else { return };
    let mut phases = Vec::new();
    let mut job =
        Job::create(&at(server.port), &request(Want::Boards(3)), |progress| phases.push(progress.to_string()))
            .await
            .expect("there are boards");
    assert!(phases.last().is_some_and(|phase| phase.ends_with("ready")), "{phases:?}");
    let machine = job.machine_info();
    // A triad of 2 x 1 wraps in y alone.
    assert_eq!((machine.name.as_str(), machine.width_chips, machine.height_chips), ("row", 16, 12));
    assert_eq!((machine.wraps_x, machine.wraps_y), (false, true));
    let boards: Vec<_> = machine.boards.iter().map(|board| (board.chip, board.host.clone())).collect();
    let chips = [(0, 0), (4, 8), (8, 4)].map(|(x, y)| ChipAddress::new(x, y));
    let hosts = [0, 2, 1].map(|z| board_host(0, z));
    assert_eq!(boards, chips.into_iter().zip(hosts).collect::<Vec<_>>());
    assert_eq!(machine.places.len(), 3);

    // It lives on by itself, although the program does nothing for longer than its keepalive.
    std::thread::sleep(Duration::from_secs(3));
    job.check().expect("alive");
    job.power(false).await.expect("boards go off");
    assert_eq!(job.progress().power, Some(false));
    job.power(true).await.expect("boards go on");
    assert_eq!(job.progress().power, Some(true));

    let id = number(&job);
    job.destroy("the test is over").await.expect("the server hears it");
    assert!(matches!(job.check(), Err(SpallocError::Over { .. })));
    assert!(matches!(job.destroy("again").await, Err(SpallocError::Over { .. })));
    assert_eq!(reason(&mut client(server.port).await, id).await, "the test is over");
}

#[tokio::test(flavor = "current_thread")]
async fn boards_are_had_in_every_way() {
    let Some(server) = Official::start() else { return };
    let at = at(server.port);
    let create = async |request: JobRequest| Job::create(&at, &request, |_| {}).await;
    let one = create(request(Want::Boards(1))).await.expect("a board");
    let size = |job: &Job| {
        let machine = job.machine_info();
        (machine.width_chips, machine.height_chips, machine.wraps_x, machine.wraps_y, machine.boards.len())
    };
    assert_eq!(size(&one), (8, 8, false, false, 1));
    drop(one);
    let all = create(request(Want::Triads { width: 2, height: 1 })).await.expect("dropped jobs are free at once");
    assert_eq!(size(&all), (24, 12, true, true, 6));
    drop(all);
    let third = BoardPlace { x: 1, y: 0, z: 2 };
    let board = create(JobRequest { machine: Some("row".to_owned()), ..request(Want::Board(third)) })
        .await
        .expect("that board");
    assert_eq!(board.machine_info().boards[0].host, board_host(1, 2));
    assert_eq!(board.machine_info().places, [third]);
    let tagged = create(JobRequest { tags: vec!["small".to_owned()], require_torus: true, ..request(Want::Boards(3)) })
        .await
        .expect("a torus");
    assert_eq!((tagged.machine_info().name.as_str(), size(&tagged)), ("torus", (12, 12, true, true, 3)));

    // Not to be had.
    let error = create(request(Want::Triads { width: 3, height: 3 })).await.expect_err("too large");
    assert!(matches!(error, SpallocError::Impossible { .. }), "{error}");
    assert!(error.to_string().contains("3 x 3 triads"), "{error}");
    let error =
        create(JobRequest { machine: Some("none".to_owned()), ..request(Want::Boards(1)) }).await.expect_err("no such");
    assert!(error.to_string().contains("`none`; it has row, torus"), "{error}");

    // Not in time.
    let mut waiting = request(Want::Triads { width: 2, height: 1 });
    waiting.queue_timeout = Duration::from_millis(300);
    let error = create(waiting).await.expect_err("a board is taken");
    assert!(matches!(error, SpallocError::Queue { .. }), "{error}");
    let jobs = client(server.port).await.list_jobs().await.expect("a list");
    assert_eq!(jobs.len(), 2, "what was given up is not queued: {jobs:?}");

    // In time, once they are free.
    let mut seen = Vec::new();
    let queued = request(Want::Triads { width: 2, height: 1 });
    let later = async {
        sleep(Duration::from_millis(500)).await;
        drop(board);
    };
    let ((), all) = tokio::join!(later, Job::create(&at, &queued, |progress| seen.push(progress.phase.clone())));
    assert_eq!(size(&all.expect("free now")).4, 6);
    assert!(seen.iter().any(|phase| matches!(phase, Phase::Queued)), "{seen:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn every_command_is_answered() {
    let Some(server) = Official::start() else { return };
    let mut client = client(server.port).await;
    assert_eq!(client.version(), ServerVersion(7, 0, 0), "spelt 1!7.0.0");
    let machines = client.list_machines().await.expect("a list");
    let shown: Vec<_> = machines.iter().map(|machine| (machine.name.as_str(), machine.width, machine.height)).collect();
    assert_eq!(shown, [("row", 2, 1), ("torus", 1, 1)]);

    client.notify_job(None).await.expect("heard");
    client.notify_machine(Some("row")).await.expect("heard");
    let job = client.create_job(&request(Want::Boards(3))).await.expect("a job");
    let (mut jobs, mut names) = (false, false);
    while !(jobs && names) {
        match client.notification(LONG).await.expect("a connection").expect("in time") {
            Notification::Jobs(changed) => jobs |= changed.contains(&job),
            Notification::Machines(changed) => names |= changed == ["row"],
        }
    }
    client.no_notify_job(None).await.expect("heard");
    client.no_notify_machine(None).await.expect("heard");
    client.job_keepalive(job).await.expect("heard");
    let record =
        client.list_jobs().await.expect("a list").into_iter().find(|record| record.job_id == job).expect("listed");
    assert_eq!(
        (record.owner.as_str(), record.keepalive, record.boards.map(|boards| boards.len())),
        ("tester", Some(2.0), Some(3))
    );
    let status = client.get_job_state(job).await.expect("a state");
    assert!(matches!(status.state, JobState::Power | JobState::Ready) && status.power == Some(true), "{status:?}");

    let place = BoardPlace { x: 1, y: 0, z: 2 };
    let physical = PhysicalPlace { cabinet: 0, frame: 0, board: 5 };
    assert_eq!(client.get_board_position("row", place).await.expect("heard"), Some(physical));
    assert_eq!(client.get_board_at_position("row", physical).await.expect("heard"), Some(place));
    assert_eq!(client.get_board_position("row", BoardPlace { x: 9, y: 0, z: 0 }).await.expect("heard"), None);
    let row = || "row".to_owned();
    let by_board = client.where_is(&Place::Board(row(), place)).await.expect("heard").expect("there");
    assert_eq!((by_board.chip, by_board.physical, by_board.job_id), ((16, 8), physical, None));
    assert_eq!(client.where_is(&Place::Physical(row(), physical)).await.expect("heard").as_ref(), Some(&by_board));
    assert_eq!(client.where_is(&Place::Chip(row(), 16, 8)).await.expect("heard").as_ref(), Some(&by_board));
    let by_job = client.where_is(&Place::JobChip(job, 9, 5)).await.expect("heard").expect("there");
    assert_eq!((by_job.job_chip, by_job.board_chip, by_job.job_id), (Some((9, 5)), (1, 1), Some(job)));
    assert_eq!(client.where_is(&Place::JobChip(JobId(4711), 0, 0)).await.expect("heard"), None);

    client.power_off_job_boards(job).await.expect("heard");
    client.power_on_job_boards(job).await.expect("heard");
    client.destroy_job(job, "enough").await.expect("heard");
    assert_eq!(reason(&mut client, job).await, "enough");
    assert_eq!(client.get_job_state(JobId(4711)).await.expect("heard").state, JobState::Unknown);
    assert_eq!(client.get_job_machine_info(JobId(4711)).await.expect("heard"), None);

    // Without a keepalive it dies.
    let job = client.create_job(&request(Want::Boards(1))).await.expect("a job");
    gone(&mut client, job).await;
    assert!(reason(&mut client, job).await.contains("timed out"));
}

#[tokio::test(flavor = "current_thread")]
async fn what_the_server_takes_away_is_an_error_with_its_reason() {
    let Some(server) = Official::start() else { return };
    let job = Job::create(&at(server.port), &request(Want::Boards(1)), |_| {}).await.expect("a board");
    let mut admin = client(server.port).await;
    admin.destroy_job(number(&job), "the machine is needed for a demo").await.expect("heard");
    let error = timeout(LONG, job.ended()).await.expect("in time");
    assert!(matches!(error, SpallocError::Destroyed { .. }), "{error}");
    assert!(error.to_string().contains("the machine is needed for a demo"), "{error}");
    assert!(job.power(true).await.is_err());
}

/// Forwards connections to a port; all are cut when `up` changes, and none is taken while it is false.
async fn forward(listener: TcpListener, port: u16, up: watch::Receiver<bool>) {
    loop {
        let Ok((mut from, _)) = listener.accept().await else { return };
        let mut up = up.clone();
        if !*up.borrow_and_update() {
            continue;
        }
        tokio::spawn(async move {
            let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut from, &mut to) => {}
                _ = up.changed() => {}
            }
        });
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_lost_connection_is_made_again() {
    let Some(server) = Official::start() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (up, is_up) = watch::channel(true);
    let forwarding = tokio::spawn(forward(listener, server.port, is_up));
    let job = Job::create(&at(port), &request(Want::Boards(1)), |_| {}).await.expect("a board");
    let mut stands = job.watch();

    // Cut again and again for longer than the keepalive.
    for _ in 0..6 {
        up.send_replace(true);
        sleep(Duration::from_millis(500)).await;
        job.check().expect("alive");
    }
    // Away for a while that is shorter than the keepalive.
    up.send_replace(false);
    timeout(LONG, stands.wait_for(|progress| !progress.connected)).await.expect("in time").expect("noticed");
    sleep(Duration::from_millis(500)).await;
    up.send_replace(true);
    timeout(LONG, stands.wait_for(|progress| progress.connected)).await.expect("in time").expect("there again");
    job.power(true).await.expect("all as before");
    let id = number(&job);
    assert!(client(server.port).await.list_jobs().await.expect("a list").iter().any(|record| record.job_id == id));

    // Away for longer than that.
    up.send_replace(false);
    let error = timeout(LONG, job.ended()).await.expect("in time");
    assert!(matches!(error, SpallocError::Lost { .. }), "{error}");
    forwarding.abort();
    gone(&mut client(server.port).await, id).await;
}

/// Not a test by itself: what the next test runs in another process, and kills.
#[tokio::test(flavor = "current_thread")]
async fn a_client_that_is_killed() {
    let Some(port) = std::env::var("SPALLOC_TEST_KILLED").ok().and_then(|port| port.parse().ok()) else { return };
    let job = Job::create(&at(port), &request(Want::Boards(3)), |_| {}).await.expect("boards");
    println!("has {}", job.id());
    sleep(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_killed_process_keeps_no_boards() {
    let Some(server) = Official::start() else { return };
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "a_client_that_is_killed", "--nocapture"])
        .env("SPALLOC_TEST_KILLED", server.port.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("this program starts");
    let mut client = client(server.port).await;
    let end = Instant::now() + LONG;
    let job = loop {
        let jobs = client.list_jobs().await.expect("a list");
        match jobs.iter().find(|record| record.state == JobState::Ready) {
            Some(record) => break record.job_id,
            None => assert!(Instant::now() < end, "{jobs:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    // Alive as long as the process is.
    sleep(Duration::from_secs(3)).await;
    assert!(client.list_jobs().await.expect("a list").iter().any(|record| record.job_id == job));
    child.kill().expect("killed");
    child.wait().expect("gone");
    let killed = Instant::now();
    gone(&mut client, job).await;
    let lasted = killed.elapsed();
    assert!(lasted < Duration::from_secs(4), "the job outlived its client by {lasted:?}");
    assert!(reason(&mut client, job).await.contains("timed out"));
}

#[tokio::test(flavor = "current_thread")]
async fn a_job_that_nobody_waits_for_is_destroyed() {
    let Some(server) = Official::start() else { return };
    let all = request(Want::Triads { width: 2, height: 1 });
    let first = Job::create(&at(server.port), &all, |_| {}).await.expect("boards");
    let (at, again) = (at(server.port), all.clone());
    assert!(
        timeout(Duration::from_millis(500), Job::create(&at, &again, |_| {})).await.is_err(),
        "there are no boards"
    );
    let jobs = client(server.port).await.list_jobs().await.expect("a list");
    assert_eq!(jobs.iter().map(|record| record.job_id).collect::<Vec<_>>(), [number(&first)]);
}
