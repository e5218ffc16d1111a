//! The way to an instruction-level machine in this process: its time passes while somebody waits.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use spinnaker_host::{Channel, Link};
use spinnaker_machine::ChipXy;
use spinnaker_sim::cycle::{BOOT_PORT, CycleMachine, Datagram};
use spinnaker_wire::sdp;

/// Address that the machine sees the host at.
const HOST: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(192, 168, 240, 254), 17_892);
/// Machine time between looks at what has come out.
const STEP: Duration = Duration::from_micros(20);

/// A machine, reached by the Ethernet of one of its boards.
pub struct CycleLink {
    machine: CycleMachine,
    board: ChipXy,
}

impl CycleLink {
    /// Takes a machine.
    pub fn new(machine: CycleMachine) -> CycleLink {
        let board = machine.boards().next().map_or(ChipXy::new(0, 0), |(chip, _)| chip);
        CycleLink { machine, board }
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut CycleMachine {
        &mut self.machine
    }
}

impl Link for CycleLink {
    fn board(&self) -> String {
        "the virtual board".into()
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.machine.now_ns())
    }

    fn send(&mut self, channel: Channel, datagram: &[u8]) -> io::Result<()> {
        let port = if channel == Channel::Scp { sdp::UDP_PORT } else { BOOT_PORT };
        let datagram = Datagram { board: self.board, host: HOST, port, time_ns: 0, data: datagram.to_vec() };
        self.machine.send(&datagram);
        Ok(())
    }

    fn receive(&mut self, channel: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>> {
        let port = if channel == Channel::Scp { sdp::UDP_PORT } else { BOOT_PORT };
        loop {
            while let Some(datagram) = self.machine.receive() {
                if datagram.port == port && datagram.host == HOST {
                    let length = datagram.data.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&datagram.data[..length]);
                    return Ok(Some(length));
                }
            }
            let now = self.now();
            if now >= deadline {
                return Ok(None);
            }
            self.machine.run_until((now + STEP).min(deadline).as_nanos() as u64);
        }
    }
}
