//! Memory: read, write, fill; allocations.

use spinnaker_wire::scp::{self, AllocCommand, Command, CommandCode, SdramSpace};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::sv::{self, SystemVariables};
use spinnaker_wire::{AppId, ChipAddress, LinkId, Unit};
use zerocopy::FromBytes;

use crate::link::Link;
use crate::transceiver::{Part, pieces};
use crate::{Boards, HostError, Result, Transceiver};

impl<L: Link> Transceiver<L> {
    /// Reads memory as a core sees it, in requests of up to 256 bytes with several in flight.
    ///
    /// # Errors
    /// [`HostError::NoData`] where a read fails, and those of [`Transceiver::request`]. An address that does not exist stops the
    /// core that reads it: [`HostError::Silent`].
    pub async fn read_into(&mut self, core: Endpoint, address: u32, data: &mut [u8]) -> Result<()> {
        check_range(address, data.len())?;
        let parts = pieces(data.len()).map(|(offset, length)| {
            let (address, length_bytes) = (address + offset as u32, length as u32);
            let command = Command::Read { address, length_bytes, unit: Unit::for_range(address, length_bytes) };
            Part { destination: core, command, reply_bytes: length }
        });
        self.run(parts, |index, payload| {
            let piece = data.chunks_mut(scp::DATA_BYTES_MAX).nth(index).unwrap_or_default();
            piece.copy_from_slice(payload.get(..piece.len()).unwrap_or_default());
            Ok(())
        })
        .await
    }

    /// Reads memory as a core sees it.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn read(&mut self, core: Endpoint, address: u32, length_bytes: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; length_bytes];
        self.read_into(core, address, &mut data).await?;
        Ok(data)
    }

    /// Writes memory as a core sees it. A monitor does not say when a write fails.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn write(&mut self, core: Endpoint, address: u32, data: &[u8]) -> Result<()> {
        check_range(address, data.len())?;
        let parts = pieces(data.len()).map(|(offset, length)| {
            let address = address + offset as u32;
            let unit = Unit::for_range(address, length as u32);
            let command = Command::Write { address, unit, data: &data[offset..offset + length] };
            Part { destination: core, command, reply_bytes: 0 }
        });
        self.run(parts, |_, _| Ok(())).await
    }

    /// Fills memory with a word.
    ///
    /// # Errors
    /// [`HostError::Argument`] for an address or length that is not a multiple of 4, and those of [`Transceiver::request`].
    pub async fn fill(&mut self, core: Endpoint, address: u32, word: u32, length_bytes: u32) -> Result<()> {
        check_range(address, length_bytes as usize)?;
        if !address.is_multiple_of(4) || !length_bytes.is_multiple_of(4) {
            return Err(HostError::Argument(format!("fill of {length_bytes} bytes at {address:#x}: not whole words")));
        }
        self.request(core, &Command::Fill { address, word, length_bytes }).await.map(drop)
    }

    /// Reads a neighbour's memory, whole words.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`]; [`HostError::NoData`] also where the link does not answer.
    pub async fn link_read(
        &mut self,
        chip: ChipAddress,
        link: LinkId,
        address: u32,
        length_bytes: usize,
    ) -> Result<Vec<u8>> {
        check_range(address, length_bytes)?;
        let mut data = vec![0; length_bytes];
        let parts = pieces(length_bytes).map(|(offset, length)| {
            let address = address + offset as u32;
            let command = Command::LinkRead { address, length_bytes: length as u32, link };
            Part { destination: Endpoint::core(chip, 0), command, reply_bytes: length }
        });
        self.run(parts, |index, payload| {
            let piece = data.chunks_mut(scp::DATA_BYTES_MAX).nth(index).unwrap_or_default();
            piece.copy_from_slice(payload.get(..piece.len()).unwrap_or_default());
            Ok(())
        })
        .await?;
        Ok(data)
    }

    /// Writes a neighbour's memory, whole words. The monitor does not say when it fails.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn link_write(&mut self, chip: ChipAddress, link: LinkId, address: u32, data: &[u8]) -> Result<()> {
        check_range(address, data.len())?;
        let parts = pieces(data.len()).map(|(offset, length)| {
            let data = &data[offset..offset + length];
            let command = Command::LinkWrite { address: address + offset as u32, link, data };
            Part { destination: Endpoint::core(chip, 0), command, reply_bytes: 0 }
        });
        self.run(parts, |_, _| Ok(())).await
    }

    /// A chip's system variables.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn system_variables(&mut self, chip: ChipAddress) -> Result<SystemVariables> {
        let bytes = self.read(Endpoint::core(chip, 0), sv::ADDRESS, sv::BYTES).await?;
        SystemVariables::read_from_bytes(&bytes)
            .map_err(|_| HostError::Argument("system variables have another size".to_string()))
    }

    /// Allocates SDRAM for an application; `tag` is 0 or a name that the application has not yet used for another size.
    /// With a tag a repeat gives the same block. Without one a lost reply may cost a block, which ends with the application.
    ///
    /// # Errors
    /// [`HostError::Exhausted`], and those of [`Transceiver::request`].
    pub async fn alloc_sdram(&mut self, chip: ChipAddress, app: AppId, length_bytes: u32, tag: u8) -> Result<u32> {
        let command = AllocCommand::Sdram { app, length_bytes, tag, existing: tag != 0 };
        let address = self.request_word(Endpoint::core(chip, 0), &Command::Alloc(command)).await?;
        allocated(chip, length_bytes, tag, address)
    }

    /// Where a block of SDRAM is that was allocated for an application with a tag.
    ///
    /// # Errors
    /// As [`Transceiver::request_data`].
    pub async fn tagged_sdram(&mut self, chip: ChipAddress, app: AppId, tag: u8) -> Result<Option<u32>> {
        let command = Command::Alloc(AllocCommand::TagAddress { app, tag });
        let address = self.request_word(Endpoint::core(chip, 0), &command).await?;
        Ok((address != 0).then_some(address))
    }

    /// Frees a block of SDRAM.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn free_sdram(&mut self, chip: ChipAddress, address: u32) -> Result<()> {
        let command = Command::Alloc(AllocCommand::FreeSdram { address });
        self.request(Endpoint::core(chip, 0), &command).await.map(drop)
    }

    /// Frees all SDRAM of an application on a chip; returns the number of blocks (of a repeated request that of the last).
    ///
    /// # Errors
    /// As [`Transceiver::request_data`].
    pub async fn free_sdram_of(&mut self, chip: ChipAddress, app: AppId) -> Result<u32> {
        self.request_word(Endpoint::core(chip, 0), &Command::Alloc(AllocCommand::FreeSdramOf { app })).await
    }

    /// Free SDRAM of a chip, and its largest block, in bytes.
    ///
    /// # Errors
    /// As [`Transceiver::request_data`].
    pub async fn sdram_space(&mut self, chip: ChipAddress) -> Result<(u32, u32)> {
        let payload = self.request_data(Endpoint::core(chip, 0), &Command::Alloc(AllocCommand::SdramSpace), 8).await?;
        space(&payload)
    }
}

impl<L: Link> Boards<L> {
    /// [`Transceiver::sdram_space`] of many chips at once, in their order.
    ///
    /// # Errors
    /// As that.
    pub async fn sdram_spaces(&mut self, chips: &[ChipAddress]) -> Result<Vec<(u32, u32)>> {
        let questions: Vec<_> = chips.iter().map(|chip| (*chip, Command::Alloc(AllocCommand::SdramSpace))).collect();
        self.ask_many(&questions, 8).await?.iter().map(|payload| space(payload)).collect()
    }

    /// [`Transceiver::alloc_sdram`] on many chips at once, bytes on each; `tag` is not 0. The addresses in the order of the chips.
    ///
    /// # Errors
    /// [`HostError::Argument`] for tag 0, and as that; blocks that were allocated end with the application.
    pub async fn alloc_sdram_many(&mut self, app: AppId, tag: u8, wanted: &[(ChipAddress, u32)]) -> Result<Vec<u32>> {
        if tag == 0 {
            return Err(HostError::Argument("blocks on many chips need a tag other than 0".to_string()));
        }
        let question = |&(chip, length_bytes): &(ChipAddress, u32)| {
            (chip, Command::Alloc(AllocCommand::Sdram { app, length_bytes, tag, existing: true }))
        };
        let answers = self.ask_many(&wanted.iter().map(question).collect::<Vec<_>>(), 4).await?;
        let answers = wanted.iter().zip(&answers);
        answers
            .map(|(&(chip, bytes), payload)| allocated(chip, bytes, tag, scp::word_reply(CommandCode::Alloc, payload)?))
            .collect()
    }
}

/// Free bytes, and those of the largest block.
fn space(payload: &[u8]) -> Result<(u32, u32)> {
    let space = SdramSpace::read(payload)?;
    Ok((space.free_bytes.get(), space.largest_bytes.get()))
}

/// What an answer to a request for memory means.
fn allocated(chip: ChipAddress, length_bytes: u32, tag: u8, address: u32) -> Result<u32> {
    match address {
        0 => Err(HostError::Exhausted { chip, wanted: format!("{length_bytes} bytes of SDRAM (tag {tag})") }),
        address => Ok(address),
    }
}

fn check_range(address: u32, length_bytes: usize) -> Result<()> {
    if address as u64 + length_bytes as u64 > 1 << 32 {
        return Err(HostError::Argument(format!("{length_bytes} bytes at {address:#x}: beyond the address space")));
    }
    Ok(())
}
