//! Gates at rest, before they are stopped.
//!
//! A gate takes messages from buffers of its monitor, and sends by the monitor's transmitter, under locks that both share. A signal to stop comes
//! at any moment: a lock would stay taken and a buffer lost, and the monitor would stop with them. A gate that has answered a hello has
//! given back all that came before it, and forgotten what it was at.

use std::time::Duration;

use spinnaker_wire::bulk::PORT;
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::vcpu::CoreState;
use spinnaker_wire::{AppId, CorePort};

use super::{Bulk, Host, Wire, say_hello, seen_from};
use crate::link::Link;
use crate::{Boards, Result};

/// For how long datagrams of a transfer that was cut short may be under way.
const LATE: Duration = Duration::from_millis(250);
/// Hellos to a gate that does not answer, and the time between them: none is to come when the gate has been stopped.
const TRIES: u32 = 4;

impl Bulk {
    /// Lets all gates come to rest.
    pub(super) async fn rest<L: Link>(&self, boards: &mut Boards<L>) -> Result<()> {
        // Of what went its way in order nothing is late.
        let is_late = self.gates.iter().flatten().any(|gate| gate.is_busy || gate.counts.repeated_blocks > 0);
        if is_late {
            boards.pause(LATE).await?;
        }
        for (transceiver, gate) in boards.transceivers.iter_mut().zip(&self.gates) {
            if let Some(gate) = gate.as_ref().filter(|gate| !gate.is_silent) {
                say_hello(&mut Wire::new(transceiver, gate.endpoint), gate.host, TRIES, LATE).await?;
            }
        }
        Ok(())
    }
}

/// Lets the gates of an application come to rest that nobody works with any more, such as those of a process that was killed, so that they
/// can be stopped. It takes a quarter of a second where there are some. One that does not answer is left as it is.
///
/// # Errors
/// As [`Boards::read_many`] and [`Transceiver::set_ip_tag`](crate::Transceiver::set_ip_tag).
pub async fn quieten<L: Link>(boards: &mut Boards<L>, app: AppId) -> Result<()> {
    let cores: Vec<_> = boards.ethernet_chips().iter().flat_map(|chip| (1..18).map(|core| (*chip, core))).collect();
    let mut gates = boards.core_words(&cores).await?;
    gates.retain(|word| word.app == app && word.state == CoreState::Run);
    if gates.is_empty() {
        return Ok(());
    }
    boards.pause(LATE).await?;
    for gate in gates {
        let endpoint = Endpoint { chip: gate.chip, port: CorePort::new(gate.core, PORT) };
        let transceiver = boards.at(gate.chip);
        let host: Option<Host> = seen_from(transceiver, gate.chip).await?;
        if let Some(host) = host {
            say_hello(&mut Wire::new(transceiver, endpoint), host, TRIES, LATE).await?;
        }
    }
    Ok(())
}
