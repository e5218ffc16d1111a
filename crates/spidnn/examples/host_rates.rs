//! What goes between host and board a second, on the instruction-level machine: memory written and read by the official monitor with one
//! request at a time and with a window of them, and by the project's own program for transfers.
//!
//! `cargo run --release -p spidnn --example host_rates [KIB [KIB_OF_STREAMS [spin5]]]`

use std::time::Duration;

use spidnn::cycle_link::CycleLink;
use spinnaker_host::bulk::Bulk;
use spinnaker_host::{Boards, BootOptions, Options, Place, Transceiver};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::sv::Board;
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (machine, board) = match std::env::args().nth(3).as_deref() {
        Some("spin5") => (Machine::spin5(), Board::Spin5),
        _ => (Machine::spin3(), Board::Spin3),
    };
    let link = CycleLink::new(CycleMachine::new(&machine, &CycleConfig::default()));
    let mut host = Transceiver::over(link, Options::default());
    let options = BootOptions::new(board, 0x5F00_0000);
    runtime.block_on(host.boot(&spidnn::boot_image::find()?, &options))?;
    let chips = [ChipAddress::new(0, 0), ChipAddress::new(1, 1)];
    for chip in chips {
        for window in [1, 4, 8] {
            let mut options = Options::default();
            options.window.requests_max = window;
            let link = host.link().by(ChipXy::new(0, 0));
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
    let mut boards = runtime.block_on(Boards::single(host))?;
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
    Ok(())
}
