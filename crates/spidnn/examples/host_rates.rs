//! What goes between host and board a second, on the instruction-level machine: memory written and read by the official monitor with one
//! request at a time and with a window of them, and by the project's own program for transfers; and what that
//! is to the load of a network.
//!
//! `cargo run --release -p spidnn --example host_rates [KIB [KIB_OF_STREAMS [spin5]]]`

use std::time::Duration;

use spidnn::reach::{self, Reached};
use spidnn::wire_board::WireBoard;
use spidnn::{Dataset, Dense, Input, Machine, Model, Sequential, Tensor};
use spinnaker_host::bulk::Bulk;
use spinnaker_host::{Options, Place, Transceiver};
use spinnaker_machine::{ChipXy, VirtualLocator, VirtualShape};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::{AppId, ChipAddress};

const ADDRESS: u32 = 0x6100_0000;

fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e6
}

fn content(kib: usize) -> Vec<u8> {
    (0..kib * 1024).map(|i| (i * 31 / 7 + i / 65_521) as u8).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kib: usize = std::env::args().nth(1).map_or(Ok(64), |text| text.parse())?;
    let stream_kib: usize = std::env::args().nth(2).map_or(Ok(4 * kib), |text| text.parse())?;
    let data = content(kib);
    let shape = match std::env::args().nth(3).as_deref() {
        Some("spin5") => VirtualShape::Spin5,
        _ => VirtualShape::Spin3,
    };
    let locator = VirtualLocator { shape, ..VirtualLocator::default() };
    let Reached { runtime, mut boards } = reach::instruction_level(&locator)?;
    let chips = [ChipAddress::new(0, 0), ChipAddress::new(1, 1)];
    for chip in chips {
        for window in [1, 4, 8] {
            let mut options = Options::default();
            options.window.requests_max = window;
            let link = boards.root().link().by(ChipXy::new(0, 0));
            let mut host = Transceiver::over(link, options);
            let monitor = Endpoint::core(chip, 0);
            let begin = host.now();
            runtime.block_on(host.write(monitor, ADDRESS, &data))?;
            let written = host.now();
            let back = runtime.block_on(host.read(monitor, ADDRESS, data.len()))?;
            let read = host.now();
            assert!(back == data);
            println!(
                "chip {chip}, {window} in flight: written {:.2} MB/s, read {:.2} MB/s, {:?}",
                rate(data.len(), written - begin),
                rate(data.len(), read - written),
                host.counts()
            );
        }
    }
    let data = content(stream_kib);
    let begin = boards.now();
    let mut bulk = runtime.block_on(Bulk::start(&mut boards, spidnn::firmware::STREAM, AppId(77)))?;
    println!("started in {:.1} ms", (boards.now() - begin).as_secs_f64() * 1e3);
    for chip in chips {
        let begin = boards.now();
        runtime.block_on(bulk.write_many(&mut boards, &[(chip, ADDRESS, &data)]))?;
        let written = boards.now();
        let place = Place { chip, address: ADDRESS, length_bytes: data.len() };
        let back = runtime.block_on(bulk.read_many(&mut boards, &[place]))?;
        let read = boards.now();
        assert!(back[0] == data);
        println!(
            "chip {chip}, streamed {stream_kib} KiB: written {:.2} MB/s, read {:.2} MB/s, {:?}",
            rate(data.len(), written - begin),
            rate(data.len(), read - written),
            bulk.counts()
        );
    }
    let begin = boards.now();
    runtime.block_on(bulk.stop(&mut boards))?;
    println!("stopped in {:.1} ms", (boards.now() - begin).as_secs_f64() * 1e3);
    for is_bulk in [true, false] {
        let (bytes, time_s) = load(&locator, is_bulk)?;
        let way = if is_bulk { "bulk transfers" } else { "the monitor's commands" };
        println!("Dense 1024x1024 on all chips by {way}: {bytes} bytes to the first run in {time_s:.3} s");
    }
    Ok(())
}

/// Brings a network of one dense layer to a machine; all bytes, and the seconds of machine time until its first run begins.
fn load(locator: &VirtualLocator, is_bulk: bool) -> Result<(u64, f64), spidnn::Error> {
    const WIDTH: usize = 1024;
    let Reached { runtime, boards } = reach::instruction_level(locator)?;
    let mut board = WireBoard::new(runtime, boards, None)?;
    if !is_bulk {
        board.by_monitor_only();
    }
    let graph = Sequential::new(Input::shape([WIDTH])).with(Dense::new(WIDTH)).build()?;
    let mut session = Model::untrained(graph, 1).on(Machine::from_board(locator_text(locator), Box::new(board)))?;
    let began_s = session.usage().machine_time_s;
    session.predict(&Dataset::new(Tensor::zeros(vec![4, WIDTH]), Tensor::zeros(vec![4])))?;
    let usage = session.usage();
    Ok((usage.counters.host_bytes, usage.machine_time_s - began_s - usage.compute_s - usage.phases.read_s))
}

fn locator_text(locator: &VirtualLocator) -> String {
    spinnaker_machine::Locator::Virtual(locator.clone()).to_string()
}
