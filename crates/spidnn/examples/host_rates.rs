//! What goes between host and board a second, through the official monitor on the instruction-level machine: memory written and read
//! with one request at a time and with a window of them.
//!
//! `cargo run --release -p spidnn --example host_rates [KIB]`

use spidnn::cycle_link::CycleLink;
use spinnaker_host::{BootOptions, Options, Transceiver};
use spinnaker_machine::Machine;
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};
use spinnaker_wire::ChipAddress;
use spinnaker_wire::sdp::Endpoint;

const ADDRESS: u32 = 0x6100_0000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kib: usize = std::env::args().nth(1).map_or(Ok(64), |text| text.parse())?;
    let data: Vec<u8> = (0..kib * 1024).map(|i| (i * 31 / 7) as u8).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let link = CycleLink::new(CycleMachine::new(&Machine::spin3(), &CycleConfig::default()));
    let mut host = Transceiver::over(link, Options::default());
    let options = BootOptions::new(spinnaker_wire::sv::Board::Spin3, 0x5F00_0000);
    runtime.block_on(host.boot(&spidnn::boot_image::find()?, &options))?;
    for chip in [ChipAddress::new(0, 0), ChipAddress::new(1, 1)] {
        for window in [1, 4, 8] {
            let mut options = Options::default();
            options.window.requests_max = window;
            let link = host.link().by(spinnaker_machine::ChipXy::new(0, 0));
            let mut host = Transceiver::over(link, options);
            let monitor = Endpoint::core(chip, 0);
            let begin = host.now();
            runtime.block_on(host.write(monitor, ADDRESS, &data))?;
            let written = host.now();
            let back = runtime.block_on(host.read(monitor, ADDRESS, data.len()))?;
            let read = host.now();
            assert!(back == data);
            let rate = |time: std::time::Duration| data.len() as f64 / time.as_secs_f64() / 1e6;
            println!(
                "chip {chip}, {window} in flight: written {:.2} MB/s, read {:.2} MB/s, {:?}",
                rate(written - begin),
                rate(read - written),
                host.counts()
            );
        }
    }
    Ok(())
}
