//! One list of operations, as a host needs them, against the official monitor on the instruction-level machine and against the
//! emulated monitors of the fast machine, over a clean link and over a rough one.

mod common;
mod list;

use common::rough::Rough;
use common::{fast, official};
use spinnaker_host::{Boards, Options, Transceiver};
use spinnaker_machine::Machine;

/// A machine with a link to each of its boards.
macro_rules! boards {
    ($link:expr, $wrap:expr) => {{
        let link = $link;
        Boards::find(Transceiver::over($wrap(link.again()), Options::default()), async |_, ip| {
            Ok(link.to(ip).map(|link| Transceiver::over($wrap(link), Options::default())))
        })
        .await
        .expect("finds the machine")
    }};
}

#[tokio::test]
async fn the_official_monitor_does_all_of_the_list() {
    let Some(board) = official().await else { return };
    let mut boards = Boards::single(board).await.expect("finds the machine");
    // What was asked while there was nobody yet is left out.
    let before = boards.root().counts().repeated;
    list::all(&mut boards, list::Setting { official: true, rough: false }).await;
    assert_eq!(boards.root().counts().repeated, before, "on a clean link nothing is sent twice");
}

#[tokio::test]
async fn the_emulated_monitor_does_all_of_the_list() {
    for machine in [Machine::spin3(), Machine::spin5(), Machine::boards(3).expect("boards")] {
        let mut boards = boards!(fast(machine), |link| link);
        list::all(&mut boards, list::Setting { official: false, rough: false }).await;
        assert_eq!(boards.root().counts().repeated, 0, "on a clean link nothing is sent twice");
    }
}

#[tokio::test]
async fn the_list_ends_right_over_a_rough_link() {
    let (mut lost, mut spiked) = (0, 0);
    for seed in 0..100 {
        println!("seed {seed}");
        let mut boards = boards!(fast(Machine::spin3()), |link| Rough::new(link, seed));
        list::all(&mut boards, list::Setting { official: false, rough: true }).await;
        lost += boards.root().link().lost;
        spiked += boards.root().link().spiked;
    }
    assert!(lost > 5_000 && spiked > 1_000, "{lost} lost, {spiked} spiked: too few to tell");
}

#[tokio::test]
async fn the_list_ends_right_over_rough_links_to_three_boards() {
    for seed in 0..5 {
        println!("seed {seed}");
        let mut boards = boards!(fast(Machine::boards(3).expect("boards")), |link| Rough::new(link, seed));
        list::all(&mut boards, list::Setting { official: false, rough: true }).await;
    }
}
