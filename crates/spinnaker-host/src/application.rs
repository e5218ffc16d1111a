//! Applications: load, start, signal, count, look into.

use std::time::Duration;

use spinnaker_wire::aplx::Aplx;
use spinnaker_wire::heap::{IOBUF_HEADER_BYTES, IoBuf, IoBufHeader};
use spinnaker_wire::scp::{Command, NnpControl, Signal, SignalWord, StartWord};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::sv::{SDRAM_SYS_ADDRESS, SDRAM_SYS_BYTES};
use spinnaker_wire::vcpu::{self, CoreState, Vcpu};
use spinnaker_wire::{AppId, ChipAddress, CoreMask, LinkId};
use zerocopy::FromBytes;

use crate::link::Link;
use crate::{HostError, Result, Transceiver};

/// Links that a flooded packet is sent to.
pub(crate) const ALL_LINKS: u8 = 0x3F;
/// How often a start is asked for before silence is an error; half a second each, and between them the cores are looked at.
const START_TRIES: u32 = 8;
/// The pauses after a count that failed, doubling: a monitor counts for 10 ms.
const COUNT_PAUSE: Duration = Duration::from_millis(10);
const COUNT_PAUSE_MAX: Duration = Duration::from_millis(640);
/// Text blocks of a core that are followed at most.
pub(crate) const IOBUF_BLOCKS_MAX: usize = 4096;

impl<L: Link> Transceiver<L> {
    /// Loads an application onto one chip and starts it on some of its cores.
    ///
    /// # Errors
    /// [`HostError::Wire`] for a file that is none, [`HostError::Argument`] for the monitor's core, and those of
    /// [`Transceiver::request`].
    pub async fn load(&mut self, chip: ChipAddress, file: &[u8], start: StartWord) -> Result<()> {
        check_application(file, start.cores)?;
        self.write(Endpoint::core(chip, 0), SDRAM_SYS_ADDRESS, file).await?;
        self.run_application(chip, start).await
    }

    /// Starts what lies in the staging area.
    pub(crate) async fn run_application(&mut self, chip: ChipAddress, start: StartWord) -> Result<()> {
        self.start(chip, Command::ApplicationRun(start), start).await.map(drop)
    }

    /// Lets a chip copy the application that its neighbour was loaded with ([`Transceiver::load`] or this), and start it. The way
    /// to bring an application to all chips of a machine: from (0, 0) outward, each chip by its link to its parent
    /// ([`spinnaker_wire::scp::ChipInfo::parent`]), also those that start no cores.
    ///
    /// # Errors
    /// [`HostError::Refused`] with [`spinnaker_wire::scp::ReturnCode::BadSum`] (SC&MP 3) or [`HostError::CopyDiffers`]
    /// (SC&MP 4) if the copy differs, and those of [`Transceiver::load`].
    pub async fn copy_from_neighbour(
        &mut self,
        chip: ChipAddress,
        link: LinkId,
        file: &[u8],
        start: StartWord,
    ) -> Result<()> {
        check_file(file)?;
        check_cores(start.cores)?;
        let length_bytes = file.len().next_multiple_of(4) as u32;
        // A sum of 0 would mean that there is none.
        let checksum = Aplx::new_checked(file)?.checksum() & 0x1FFF_FFFF;
        let command = Command::ApplicationCopyRun { link, checksum, length_bytes, start };
        let payload = self.start(chip, command, start).await?;
        // SC&MP 4 says "done" in any case, but adds the sum that it got where it is another.
        if payload.is_empty() { Ok(()) } else { Err(HostError::CopyDiffers { chip }) }
    }

    /// Starts an application that lies anywhere in a chip's shared memory.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn start_at(&mut self, chip: ChipAddress, address: u32, start: StartWord) -> Result<()> {
        self.start(chip, Command::ApplicationStart { address, start }, start).await.map(drop)
    }

    /// A start whose reply is lost must not be repeated blindly: the cores would start twice. Their blocks tell.
    async fn start(&mut self, chip: ChipAddress, command: Command<'_>, start: StartWord) -> Result<Vec<u8>> {
        let mut tries = START_TRIES;
        loop {
            match self.request(Endpoint::core(chip, 0), &command).await {
                Err(HostError::Silent { .. }) if tries > 1 => {
                    if self.is_started(chip, start).await? {
                        return Ok(Vec::new());
                    }
                }
                result => return result,
            }
            tries -= 1;
        }
    }

    /// Whether a start has been carried out, by the block of its first core. Of a copy without cores nothing shows that; it may be repeated.
    pub(crate) async fn is_started(&mut self, chip: ChipAddress, start: StartWord) -> Result<bool> {
        match (0..18).find(|core| start.cores.0 & 1 << core != 0) {
            Some(core) => Ok(self.vcpu(chip, core).await?.app() == start.app),
            None => Ok(false),
        }
    }

    /// Sends a signal to the cores of an application, everywhere.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn signal(&mut self, word: SignalWord) -> Result<()> {
        let command = Command::Signal { transport: word.signal.transport(), word };
        self.request(Endpoint::core(ChipAddress::ROOT, 0), &command).await.map(drop)
    }

    /// Ends an application everywhere and frees what it holds.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn stop(&mut self, app: AppId) -> Result<()> {
        let word = SignalWord::to_app(Signal::Stop, app).word();
        let command = Command::NearestNeighbour {
            key: 0x003F_0000,
            payload: 0x5000_0000 | word,
            control: NnpControl::new(true, ALL_LINKS, 0, 0),
        };
        self.request(Endpoint::core(ChipAddress::ROOT, 0), &command).await.map(drop)
    }

    /// How many cores of an application are in a state, on the board of an Ethernet chip.
    ///
    /// # Errors
    /// As [`Transceiver::request_data`].
    pub async fn count(&mut self, ethernet_chip: ChipAddress, app: AppId, state: CoreState) -> Result<u32> {
        let mut pause = COUNT_PAUSE;
        loop {
            let counted = self.request_word(Endpoint::core(ethernet_chip, 0), &Command::Count { app, state }).await;
            match counted {
                // A count is under way, such as that of a request whose reply was late, or a chip did not answer in time.
                Err(HostError::NoData { .. }) if pause <= COUNT_PAUSE_MAX => self.pause(pause).await?,
                counted => return counted,
            }
            pause *= 2;
        }
    }

    /// Waits until so many cores of an application are in a state, on one board.
    ///
    /// # Errors
    /// [`HostError::Waiting`] with what was counted last, and those of [`Transceiver::count`].
    pub async fn wait_for(
        &mut self,
        ethernet_chip: ChipAddress,
        app: AppId,
        state: CoreState,
        wanted: u32,
        within: Duration,
    ) -> Result<()> {
        let start = self.link.now();
        loop {
            let got = self.count(ethernet_chip, app, state).await?;
            let waited = self.link.now().saturating_sub(start);
            if got == wanted {
                return Ok(());
            } else if waited >= within {
                return Err(HostError::Waiting { state: state.to_string(), wanted, got, waited });
            }
            self.pause(Duration::from_millis(20)).await?;
        }
    }

    /// A core as its monitor shows it: state, application, registers after a run-time error.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn vcpu(&mut self, chip: ChipAddress, core: u8) -> Result<Vcpu> {
        let bytes = self.read(Endpoint::core(chip, 0), vcpu::address(core), vcpu::BYTES).await?;
        Vcpu::read_from_bytes(&bytes).map_err(|_| HostError::Argument("a VCPU block has another size".to_string()))
    }

    /// The text that a core has written (`io_buf`). Read it before the application is stopped.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn text(&mut self, chip: ChipAddress, core: u8) -> Result<String> {
        let size_bytes = self.system_variables(chip).await?.boot.iobuf_size.get() as usize;
        let mut address = self.vcpu(chip, core).await?.iobuf.get();
        let monitor = Endpoint::core(chip, 0);
        let mut text = Vec::new();
        for _ in 0..IOBUF_BLOCKS_MAX {
            if !is_sdram(address) {
                break;
            }
            let head = self.read(monitor, address, IOBUF_HEADER_BYTES).await?;
            let Ok((header, _)) = IoBufHeader::ref_from_prefix(&head) else { break };
            let used_bytes = (header.length_bytes.get() as usize).min(size_bytes);
            let block = self.read(monitor, address, IOBUF_HEADER_BYTES + used_bytes).await?;
            // The count may have grown in between.
            text.extend_from_slice(IoBuf::read(&block).map_or(&block[IOBUF_HEADER_BYTES..], |b| b.text));
            address = header.next.get();
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Whether the monitor can follow an address that was read from its memory: it would stop at one that leads nowhere.
pub(crate) fn is_sdram(address: u32) -> bool {
    (0x6000_0000..0x6800_0000).contains(&(address & !0x1000_0000)) && address.is_multiple_of(4)
}

pub(crate) fn check_file(file: &[u8]) -> Result<()> {
    Aplx::new_checked(file)?;
    if file.len() > SDRAM_SYS_BYTES {
        return Err(HostError::Argument(format!("{} bytes: an application has at most {SDRAM_SYS_BYTES}", file.len())));
    }
    Ok(())
}

pub(crate) fn check_cores(cores: CoreMask) -> Result<()> {
    if cores.0 & 1 != 0 || cores.0 & !CoreMask::BITS != 0 {
        return Err(HostError::Argument(format!("{cores}: applications run on cores 1 to 17")));
    }
    Ok(())
}

/// What is loaded for nobody is a mistake.
pub(crate) fn check_application(file: &[u8], cores: CoreMask) -> Result<()> {
    check_file(file)?;
    check_cores(cores)?;
    if cores.count() == 0 {
        return Err(HostError::Argument("no cores to start".to_string()));
    }
    Ok(())
}
