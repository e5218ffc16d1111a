//! The way to an instruction-level machine in this process: its time passes while somebody waits.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddrV4;
use std::rc::Rc;
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
    shared: Rc<RefCell<Shared>>,
    board: ChipXy,
}

/// A machine, and what it has sent that no link has taken yet.
struct Shared {
    machine: CycleMachine,
    waiting: BTreeMap<(ChipXy, u16), VecDeque<Vec<u8>>>,
}

impl Shared {
    /// Sorts what has come out.
    fn drain(&mut self) {
        while let Some(datagram) = self.machine.receive() {
            if datagram.host == HOST {
                self.waiting.entry((datagram.board, datagram.port)).or_default().push_back(datagram.data);
            }
        }
    }
}

impl CycleLink {
    /// Takes a machine; the link is that of its first board.
    pub fn new(machine: CycleMachine) -> CycleLink {
        let board = machine.boards().next().map_or(ChipXy::new(0, 0), |(chip, _)| chip);
        CycleLink { shared: Rc::new(RefCell::new(Shared { machine, waiting: BTreeMap::new() })), board }
    }

    /// The same machine by the Ethernet of another of its boards.
    pub fn by(&self, board: ChipXy) -> CycleLink {
        CycleLink { shared: Rc::clone(&self.shared), board }
    }

    /// The machine.
    pub fn machine(&self) -> RefMut<'_, CycleMachine> {
        RefMut::map(self.shared.borrow_mut(), |shared| &mut shared.machine)
    }

    fn port(channel: Channel) -> u16 {
        if channel == Channel::Scp { sdp::UDP_PORT } else { BOOT_PORT }
    }
}

impl Link for CycleLink {
    fn board(&self) -> String {
        "the virtual board".into()
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.shared.borrow().machine.now_ns())
    }

    async fn send(&mut self, channel: Channel, datagram: &[u8]) -> io::Result<()> {
        let port = Self::port(channel);
        let datagram = Datagram { board: self.board, host: HOST, port, time_ns: 0, data: datagram.to_vec() };
        self.machine().send(&datagram);
        Ok(())
    }

    async fn receive(&mut self, channel: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>> {
        let place = (self.board, Self::port(channel));
        loop {
            // In a block: nothing stays borrowed while others have their turn.
            {
                let mut shared = self.shared.borrow_mut();
                shared.drain();
                if let Some(data) = shared.waiting.get_mut(&place).and_then(VecDeque::pop_front) {
                    let length = data.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&data[..length]);
                    return Ok(Some(length));
                }
                let now = Duration::from_nanos(shared.machine.now_ns());
                if now >= deadline {
                    return Ok(None);
                }
                shared.machine.run_until((now + STEP).min(deadline).as_nanos() as u64);
            }
            // The links of other boards have their turn, and whoever wants an end.
            tokio::task::yield_now().await;
        }
    }
}
