//! The router of a chip: its diagnostic counters and filters, and how long packets wait when they are blocked.

use spinnaker_wire::ChipAddress;
use spinnaker_wire::diagnostics::{
    CONTROL_ADDRESS, COUNTER_ENABLE_ADDRESS, COUNTERS, COUNTERS_FIXED, Counter, Filter, RouterControl, WaitCode,
    counter_address, filter_address,
};
use spinnaker_wire::sdp::Endpoint;

use crate::link::Link;
use crate::{Boards, HostError, Place, Result, Transceiver};

/// What the counters take in memory.
const COUNTERS_BYTES: usize = 4 * COUNTERS as usize;

/// The sixteen diagnostic counters of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RouterCounters(pub [u32; COUNTERS as usize]);

impl RouterCounters {
    /// Packets that one of them has counted; they wrap around.
    pub fn get(&self, counter: Counter) -> u32 {
        self.0.get(usize::from(counter.raw())).copied().unwrap_or_default()
    }

    fn read(bytes: &[u8]) -> Self {
        let mut counters = Self::default();
        for (counter, word) in counters.0.iter_mut().zip(bytes.as_chunks().0) {
            *counter = u32::from_le_bytes(*word);
        }
        counters
    }
}

impl<L: Link> Boards<L> {
    /// The diagnostic counters of the routers of many chips, in their order.
    ///
    /// # Errors
    /// As [`Boards::read_many`].
    pub async fn router_counters(&mut self, chips: &[ChipAddress]) -> Result<Vec<RouterCounters>> {
        let place = |&chip: &ChipAddress| Place { chip, address: counter_address(0), length_bytes: COUNTERS_BYTES };
        let all = self.read_many(&chips.iter().map(place).collect::<Vec<_>>()).await?;
        Ok(all.iter().map(|bytes| RouterCounters::read(bytes)).collect())
    }
}

impl<L: Link> Transceiver<L> {
    /// The diagnostic counters of a chip's router.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn router_counters(&mut self, chip: ChipAddress) -> Result<RouterCounters> {
        let bytes = self.read(Endpoint::core(chip, 0), counter_address(0), COUNTERS_BYTES).await?;
        Ok(RouterCounters::read(&bytes))
    }

    /// Sets all diagnostic counters of a chip's router to zero, and lets all of them count.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn clear_router_counters(&mut self, chip: ChipAddress) -> Result<()> {
        self.write_word(chip, COUNTER_ENABLE_ADDRESS, u32::MAX).await
    }

    /// What a counter of a chip's router counts.
    ///
    /// # Errors
    /// [`HostError::Argument`] for a number that is not below 16, and those of [`Transceiver::read_into`].
    pub async fn router_filter(&mut self, chip: ChipAddress, number: u8) -> Result<Filter> {
        check_number(number, 0)?;
        Ok(Filter(self.read_word(chip, filter_address(number)).await? & Filter::BITS))
    }

    /// Chooses what a user's counter (12 to 15) counts.
    ///
    /// # Errors
    /// [`HostError::Argument`] for another number, and those of [`Transceiver::request`].
    pub async fn set_router_filter(&mut self, chip: ChipAddress, number: u8, filter: Filter) -> Result<()> {
        check_number(number, COUNTERS_FIXED)?;
        self.write_word(chip, filter_address(number), filter.0 & Filter::BITS).await
    }

    /// The control register of a chip's router.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn router_control(&mut self, chip: ChipAddress) -> Result<RouterControl> {
        Ok(RouterControl(self.read_word(chip, CONTROL_ADDRESS).await?))
    }

    /// Chooses how long packets wait at a chip's router when they are blocked: `wait1` until they are sent by another link,
    /// `wait2` after that until they are dropped. After boot it is 240 cycles of the router (1.8 us) and 0, which drops them without
    /// another link.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn set_router_waits(&mut self, chip: ChipAddress, wait1: WaitCode, wait2: WaitCode) -> Result<()> {
        let control = self.router_control(chip).await?.with_waits(wait1, wait2);
        self.write_word(chip, CONTROL_ADDRESS, control.0).await
    }

    pub(crate) async fn read_word(&mut self, chip: ChipAddress, address: u32) -> Result<u32> {
        let mut word = [0; 4];
        self.read_into(Endpoint::core(chip, 0), address, &mut word).await?;
        Ok(u32::from_le_bytes(word))
    }

    async fn write_word(&mut self, chip: ChipAddress, address: u32, word: u32) -> Result<()> {
        self.write(Endpoint::core(chip, 0), address, &word.to_le_bytes()).await
    }
}

fn check_number(number: u8, first: u8) -> Result<()> {
    if number < first || number >= COUNTERS {
        return Err(HostError::Argument(format!(
            "diagnostic counter {number} of a router: there are {first} to {} to choose from",
            COUNTERS - 1
        )));
    }
    Ok(())
}
