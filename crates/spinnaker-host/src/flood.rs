//! Flood fill: data that go to all chips at once, from neighbour to neighbour.
//!
//! Every chip hears each packet from all its neighbours, which repeat it; what a chip misses all the same it does not ask for.
//! Whoever wants to be sure reads it back.

use spinnaker_wire::ChipAddress;
use spinnaker_wire::scp::{Command, DATA_BYTES_MAX, FloodBlock, NnpControl, StartWord};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::sv::SDRAM_SYS_ADDRESS;

use crate::application::{ALL_LINKS, check_application};
use crate::link::Link;
use crate::{HostError, Result, Transceiver};

/// Number of a fill; even. One is enough: fills of one host follow each other.
const FILL_ID: u16 = 12;
/// How the packets are sent on: two repeats, 24 microseconds before each.
const CONTROL: NnpControl = NnpControl::new(false, ALL_LINKS, 2, 3);
/// The same for blocks of data, whose repeats wait longer.
const BLOCK_REPEAT: u8 = 0x1E;
const BLOCKS_MAX: usize = 255;
/// Bytes that one fill carries.
const FILL_BYTES_MAX: usize = BLOCKS_MAX * DATA_BYTES_MAX;
/// Packets by their keys: start, selection of cores, end.
const START: u32 = 0x0600_0000;
const SELECT: u32 = 0x0700_0000;
const END: u32 = 0x0F00_0000;

impl<L: Link> Transceiver<L> {
    /// Writes the same data into the memory of all chips of the machine, by one fill for each 65,280 bytes. A chip that misses a
    /// packet misses a block, and nobody says so: see [`Boards::write_everywhere`](crate::Boards::write_everywhere).
    ///
    /// # Errors
    /// [`HostError::Argument`] for an address or length that is not a multiple of 4, and those of [`Transceiver::request`].
    pub async fn flood_write(&mut self, address: u32, data: &[u8]) -> Result<()> {
        if address as u64 + data.len() as u64 > 1 << 32 || !address.is_multiple_of(4) || !data.len().is_multiple_of(4) {
            return Err(HostError::Argument(format!(
                "flood of {} bytes to {address:#x}: wants whole words within the address space",
                data.len()
            )));
        }
        for (part, data) in data.chunks(FILL_BYTES_MAX).enumerate() {
            let address = address + (part * FILL_BYTES_MAX) as u32;
            self.flood_start(data.len()).await?;
            self.flood_blocks(address, data).await?;
            self.flood_end(0).await?;
        }
        Ok(())
    }

    /// Loads an application onto all chips at once and starts it on the same cores of each: SC&MP 4.0.0 does not look at regions, so
    /// that every chip loads. For chosen cores of chosen chips: [`Boards::launch`](crate::Boards::launch).
    ///
    /// # Errors
    /// As [`Transceiver::load`], and [`HostError::Argument`] for a file of more than 65,280 bytes.
    pub async fn flood_fill(&mut self, file: &[u8], start: StartWord) -> Result<()> {
        check_application(file, start.cores)?;
        let mut padded = file.to_vec();
        padded.resize(file.len().next_multiple_of(4), 0);
        if padded.len() > FILL_BYTES_MAX {
            return Err(HostError::Argument(format!(
                "{} bytes: an application that is flooded has at most {FILL_BYTES_MAX}",
                file.len()
            )));
        }
        self.flood_start(padded.len()).await?;
        self.flood_packet(SELECT | start.cores.0, 0, CONTROL).await?;
        self.flood_blocks(SDRAM_SYS_ADDRESS, &padded).await?;
        self.flood_end(start.word()).await
    }

    async fn flood_packet(&mut self, key: u32, payload: u32, control: NnpControl) -> Result<()> {
        let command = Command::NearestNeighbour { key, payload, control };
        self.request(Endpoint::core(ChipAddress::ROOT, 0), &command).await.map(drop)
    }

    async fn flood_start(&mut self, bytes: usize) -> Result<()> {
        let blocks = bytes.div_ceil(DATA_BYTES_MAX) as u32;
        let fresh = NnpControl(CONTROL.0 | 1 << 31);
        self.flood_packet(START | u32::from(FILL_ID) << 16 | blocks << 8, 0xFFFF, fresh).await
    }

    /// In order, each when the one before is out: a chip's relay holds only a few packets.
    async fn flood_blocks(&mut self, address: u32, data: &[u8]) -> Result<()> {
        for (number, data) in data.chunks(DATA_BYTES_MAX).enumerate() {
            let command = Command::FloodFillData(FloodBlock {
                links: ALL_LINKS,
                repeat: BLOCK_REPEAT,
                id: FILL_ID,
                block: number as u16,
                address: address + (number * DATA_BYTES_MAX) as u32,
                data,
            });
            self.request(Endpoint::core(ChipAddress::ROOT, 0), &command).await?;
        }
        Ok(())
    }

    async fn flood_end(&mut self, start_word: u32) -> Result<()> {
        self.flood_packet(END | u32::from(FILL_ID), start_word, CONTROL).await
    }
}
