//! Sessions that bring their networks by bulk transfers.

use spidnn::lease::Lease;
use spidnn::wire_board::{BULK_APP, WireBoard};
use spidnn::{Activation, Dataset, Dense, Graph, Input, Machine, Model, Sequential, Tensor};
use spinnaker_host::Link;
use tokio::runtime::Runtime;

use super::*;

/// Half a megabyte of weights.
fn wide() -> Graph {
    let net = Sequential::new(Input::shape([256]))
        .with(Dense::new(512).activation(Activation::Relu))
        .with(Dense::new(4).activation(Activation::Softmax));
    net.build().unwrap()
}

/// Predictions, the seconds of machine time in which the network came, and the session.
fn predict(machine: Machine) -> (Vec<u32>, f64, spidnn::Session) {
    let numbers = (0..8 * 256).map(|i| (i as f32 * 0.7).sin()).collect();
    let data = Dataset::new(Tensor::from_shape_vec(vec![8, 256], numbers).unwrap(), Tensor::zeros(vec![8]));
    let mut session = Model::untrained(wide(), 3).on(machine).unwrap();
    let outputs = session.predict(&data).unwrap_or_else(|e| panic!("{e}"));
    let bits = outputs.iter().flat_map(|output| output.iter().map(|x| x.to_bits())).collect();
    let load_s = session.usage().phases.load_s;
    (bits, load_s, session)
}

fn expected() -> Vec<u32> {
    predict(Machine::open("virtual:spin3").unwrap()).0
}

fn machine<L: Link + 'static>(board: WireBoard<L>) -> Machine {
    Machine::from_board("the board of the test", Box::new(board))
}

fn on_wires<L: Link>(runtime: Runtime, boards: Boards<L>) -> WireBoard<L> {
    WireBoard::new(runtime, boards, None).unwrap()
}

#[test]
fn a_large_network_comes_sooner_with_the_same_bits() {
    let Some((runtime, boards)) = boot(0, &CycleConfig::default()) else { return };
    let (bits, by_bulk_s, _) = predict(machine(on_wires(runtime, boards)));
    assert!(bits == expected());
    let Some((runtime, boards)) = boot(0, &CycleConfig::default()) else { return };
    let mut board = on_wires(runtime, boards);
    board.by_monitor_only();
    let (bits, by_monitor_s, _) = predict(machine(board));
    assert!(bits == expected());
    println!("loaded in {by_bulk_s:.3} s, by the monitor's commands in {by_monitor_s:.3} s");
    // Half a megabyte to each of four chips: by the monitor at 1.3 MB/s to three of them, else at 9.3 MB/s.
    assert!(by_bulk_s < 0.4 * by_monitor_s, "{by_bulk_s} s, by the monitor {by_monitor_s} s");
}

#[test]
fn a_network_comes_over_a_bad_cable() {
    let Some((runtime, mut boards)) = boot(5, &CycleConfig::default()) else { return };
    boards.root().link().faults = Faults { lost: 20, doubled: 20, spiked: 0, shuffled: 100, ask_every: None };
    let (bits, ..) = predict(machine(on_wires(runtime, boards)));
    assert!(bits == expected());
}

/// Polls a future so often and drops it; whether it was over before. Each turn is 20 us of machine time, or less.
async fn cut_short(turns: u32, future: impl Future) -> bool {
    let mut future = std::pin::pin!(future);
    let mut left = turns;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(_) => std::task::Poll::Ready(true),
        std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(false),
        std::task::Poll::Pending => {
            left -= 1;
            std::task::Poll::Pending
        }
    })
    .await
}

/// Stopped while it has a lock or a buffer of its monitor's, the gate would take the monitor with it.
#[test]
fn the_monitor_outlives_transfers_that_are_cut_short_at_any_moment() {
    let Some((runtime, mut boards)) = boot(0, &CycleConfig::default()) else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let data = content(60_000, 1);
    let chips = [ChipAddress::new(0, 0), ChipAddress::new(1, 1)];
    let writes = chips.map(|chip| (chip, 0x6100_0000, &data[..]));
    let places = chips.map(|chip| Place { chip, address: 0x6100_0000, length_bytes: data.len() });
    let (mut over, mut written, mut read) = (0, 0, 0);
    runtime.block_on(async {
        for round in 0..24 {
            let mut turns = |below: u32| rng.next_u32() % below;
            if round % 6 == 5 {
                // While it is loaded and greeted.
                over += u32::from(cut_short(turns(4000), Bulk::start(&mut boards, STREAM, BULK_APP)).await);
                spidnn::lease::clear(&mut boards).await.unwrap();
            } else {
                let mut bulk = Bulk::start(&mut boards, STREAM, BULK_APP).await.unwrap();
                let is_over = if round % 2 == 0 {
                    cut_short(turns(600), bulk.write_many(&mut boards, &writes)).await
                } else {
                    cut_short(turns(600), bulk.read_many(&mut boards, &places)).await
                };
                over += u32::from(is_over);
                written += bulk.counts().written_bytes;
                read += bulk.counts().read_bytes;
                if round % 4 < 2 {
                    bulk.stop(&mut boards).await.unwrap();
                } else {
                    // By somebody who knows nothing of it, as after a kill.
                    spidnn::lease::clear(&mut boards).await.unwrap();
                }
            }
            let root = Endpoint::core(ChipAddress::new(0, 0), 0);
            let kernel = boards.root().version(root).await.unwrap_or_else(|e| panic!("round {round}: {e}"));
            assert_eq!(kernel.name, "SC&MP");
            assert_eq!(boards.applications().await.unwrap(), BTreeMap::new(), "round {round}");
        }
    });
    assert!(over < 8, "{over} were over before");
    assert!(written > 0 && read > 0, "{written} and {read} bytes by the gates: nothing was cut there");
    let (bits, ..) = predict(machine(on_wires(runtime, boards)));
    assert!(bits == expected());
}

#[test]
fn what_a_killed_load_has_left_is_cleared_by_the_next_session() {
    let Some((runtime, mut boards)) = boot(0, &CycleConfig::default()) else { return };
    runtime.block_on(async {
        let mut bulk = Bulk::start(&mut boards, STREAM, BULK_APP).await.unwrap();
        let data = content(200_000, 1);
        let writes = [(ChipAddress::new(1, 1), 0x6100_0000, &data[..])];
        // In the middle of a transfer nobody is there any more.
        assert!(!cut_short(400, bulk.write_many(&mut boards, &writes)).await, "it is over");
    });
    let left = runtime.block_on(boards.applications()).unwrap();
    assert_eq!(left, BTreeMap::from([(BULK_APP, 4)]));
    runtime.block_on(boards.look_again()).unwrap();
    let lease = Lease::take("the board of a killed load").unwrap();
    let board = WireBoard::new(runtime, boards, Some(lease)).unwrap();
    let (bits, ..) = predict(machine(board));
    assert!(bits == expected());
}
