//! Copies of requests that may still be on their way when their request is over.
//!
//! A request that was sent twice is over with its first reply. The other copy is lost, or late; a late one is carried out when it
//! arrives, and may undo what was done since: write old data over new ones, free a block that has another owner by now. So
//! what changes something waits for strays that touch the same, until they are too old to come. Late replies do not end the wait:
//! networks double datagrams, so they do not tell which copies were carried out.

use std::time::Duration;

use spinnaker_wire::ChipAddress;
use spinnaker_wire::scp::Command;
use spinnaker_wire::sdp::Endpoint;

use super::Pending;

/// What a request changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// Nothing that a repeat could spoil.
    Nothing,
    /// Memory of a chip, by its first and last address. Both views of an address are one.
    Memory(ChipAddress, u32, u32),
    /// Anything of a chip.
    Chip(ChipAddress),
    /// Anything anywhere.
    Machine,
}

/// Addresses with the bit left out that tells buffered from unbuffered views (data sheet, memory map).
const VIEW_BIT: u32 = 0x1000_0000;

impl Touch {
    pub fn of(destination: Endpoint, command: &Command<'_>) -> Self {
        let chip = destination.chip;
        let memory = |address: u32, length_bytes: u32| {
            let first = address & !VIEW_BIT;
            Self::Memory(chip, first, first.saturating_add(length_bytes.saturating_sub(1)))
        };
        match command {
            Command::Version | Command::Read { .. } | Command::LinkRead { .. } | Command::Count { .. } => Self::Nothing,
            Command::Info | Command::Led(_) | Command::Sync(_) => Self::Nothing,
            Command::Write { address, data, .. } => memory(*address, data.len() as u32),
            Command::Fill { address, length_bytes, .. } => memory(*address, *length_bytes),
            Command::Signal { .. }
            | Command::NearestNeighbour { .. }
            | Command::FloodFillData(_)
            | Command::LinkWrite { .. } => Self::Machine,
            _ => Self::Chip(chip),
        }
    }

    fn meets(self, other: Self) -> bool {
        // The root chip has two addresses.
        let same = |a: ChipAddress, b: ChipAddress| a == b || a == ChipAddress::ROOT || b == ChipAddress::ROOT;
        match (self, other) {
            (Self::Nothing, _) | (_, Self::Nothing) => false,
            (Self::Machine, _) | (_, Self::Machine) => true,
            (Self::Memory(a, a_first, a_last), Self::Memory(b, b_first, b_last)) => {
                same(a, b) && a_first <= b_last && b_first <= a_last
            }
            (Self::Memory(a, ..) | Self::Chip(a), Self::Memory(b, ..) | Self::Chip(b)) => same(a, b),
        }
    }
}

struct Stray {
    touch: Touch,
    /// None comes after that.
    until: Duration,
}

/// See the module.
#[derive(Default)]
pub(super) struct Strays(Vec<Stray>);

impl Strays {
    /// Takes note of a request that is over.
    pub fn note(&mut self, request: &Pending, life: Duration) {
        if request.tries > request.replies && request.touch != Touch::Nothing {
            self.0.push(Stray { touch: request.touch, until: request.last_sent + life });
        }
    }

    /// Until when a request has to wait.
    pub fn until(&mut self, now: Duration, touch: Touch) -> Option<Duration> {
        self.0.retain(|stray| stray.until > now);
        self.0.iter().filter(|stray| stray.touch.meets(touch)).map(|stray| stray.until).max()
    }
}

#[cfg(test)]
mod tests {
    use spinnaker_wire::Unit;

    use super::*;

    #[test]
    fn requests_meet_where_they_change_the_same() {
        let to = |x| Endpoint::core(ChipAddress::new(x, 0), 0);
        let write = |address| Command::Write { address, unit: Unit::Byte, data: &[0; 16] };
        let touch = |x, command: &Command<'_>| Touch::of(to(x), command);
        let first = touch(1, &write(0x6000_0000));
        assert!(first.meets(touch(1, &write(0x6000_000F))));
        assert!(first.meets(touch(1, &write(0x7000_0000))), "the other view of the same memory");
        assert!(!first.meets(touch(1, &write(0x6000_0010))));
        assert!(!first.meets(touch(2, &write(0x6000_0000))));
        assert!(!first.meets(touch(1, &Command::Info)));
        let root = Touch::of(Endpoint::core(ChipAddress::ROOT, 0), &write(0x6000_0000));
        assert!(first.meets(root), "the root may be that chip");
        let free = Command::Alloc(spinnaker_wire::scp::AllocCommand::FreeSdram { address: 0x6000_0000 });
        assert!(first.meets(touch(1, &free)) && !first.meets(touch(0, &free)));
        assert!(first.meets(Touch::Machine) && !Touch::Nothing.meets(Touch::Machine));
    }
}
