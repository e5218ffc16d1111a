//! From a blank board to a monitor that is ready.

use std::time::Duration;

use spinnaker_wire::ChipAddress;
use spinnaker_wire::boot::{self, BLOCK_BYTES, Repr};
use spinnaker_wire::boot_image::{self, BootImage};
use spinnaker_wire::iptag::{self, TimeoutCode};
use spinnaker_wire::scp::{self, Command};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::sv::{Board, BootVariables};

use crate::link::{Channel, Link};
use crate::{HostError, Result, Transceiver};

/// How a board is booted.
#[derive(Clone, Debug)]
pub struct BootOptions {
    /// What the boot image must say of the board.
    pub board: Board,
    /// Unix seconds.
    pub unix_time_s: u32,
    /// The pause after each boot message; the ROM does not answer and takes about 1 ms for a block.
    pub pause: Duration,
    /// The pause between the last message and the first question.
    pub settle: Duration,
    /// How often the image is sent at most.
    pub rounds: u32,
    /// For how long a monitor that answers may set up its network.
    pub ready_within: Duration,
}

impl BootOptions {
    /// For a kind of board.
    pub fn new(board: Board, unix_time_s: u32) -> Self {
        Self {
            board,
            unix_time_s,
            pause: Duration::from_millis(10),
            settle: Duration::from_secs(2),
            rounds: 3,
            ready_within: Duration::from_secs(30),
        }
    }
}

/// Who answers on a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `SC&MP`, `SARK`, `BC&MP`.
    pub name: String,
    /// Major, minor, patch.
    pub version: (u16, u16, u16),
    /// The chip; [`ChipAddress::ROOT`] from a monitor that still sets up its network.
    pub chip: ChipAddress,
    /// Physical core.
    pub physical_core: u8,
}

impl<L: Link> Transceiver<L> {
    /// Who answers on a core.
    ///
    /// # Errors
    /// Those of [`Transceiver::request`], and [`HostError::Wire`].
    pub async fn version(&mut self, destination: Endpoint) -> Result<Kernel> {
        let payload = self.request(destination, &Command::Version).await?;
        let version = scp::Version::parse(&payload)?;
        Ok(Kernel {
            name: version.name.to_string(),
            version: version.number,
            chip: version.chip,
            physical_core: version.physical_core,
        })
    }

    /// Boots the board unless a monitor answers already, and waits until it is ready.
    ///
    /// # Errors
    /// [`HostError::Wire`] for an image that is none, [`HostError::Silent`], [`HostError::NotReady`], [`HostError::Version`].
    pub async fn boot(&mut self, image: &[u8], options: &BootOptions) -> Result<Kernel> {
        let patched = patched(image, options)?;
        match self.wait_ready(options.ready_within).await {
            Err(HostError::Silent { .. }) => self.boot_rounds(&patched, options).await,
            ready => ready,
        }
    }

    /// Boots a board that is known to be silent, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Transceiver::boot`].
    pub async fn boot_blank(&mut self, image: &[u8], options: &BootOptions) -> Result<Kernel> {
        self.boot_rounds(&patched(image, options)?, options).await
    }

    async fn boot_rounds(&mut self, patched: &[u8], options: &BootOptions) -> Result<Kernel> {
        let image = BootImage::new_checked(patched)?;
        let mut round = 1;
        loop {
            self.send_image(&image, options).await?;
            self.pause(options.settle).await?;
            match self.wait_ready(options.ready_within).await {
                Err(HostError::Silent { .. }) if round < options.rounds => round += 1,
                ready => return ready,
            }
        }
    }

    /// Sends the boot messages once.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub async fn send_image(&mut self, image: &BootImage<'_>, options: &BootOptions) -> Result<()> {
        let mut message = [0; boot::MESSAGE_BYTES_MAX];
        debug_assert!(image.bytes().len() <= boot_image::BYTES_MAX && message.len() > BLOCK_BYTES);
        let length = Repr::Start { blocks: image.blocks_len() }.emit(&mut message)?;
        self.send_boot(&message[..length], options).await?;
        for (number, block) in image.blocks().enumerate() {
            let length = boot::emit_block(number as u8, block, &mut message)?;
            self.send_boot(&message[..length], options).await?;
        }
        let length = Repr::Control { execute: true, entry: 0 }.emit(&mut message)?;
        self.send_boot(&message[..length], options).await
    }

    async fn send_boot(&mut self, message: &[u8], options: &BootOptions) -> Result<()> {
        let sent = self.link.send(Channel::Boot, message).await;
        sent.map_err(|source| HostError::of_io(self.link.board(), source))?;
        self.pause(options.pause).await
    }

    /// Waits for a monitor that answers to be ready, and sets the time-out of transient tags.
    ///
    /// # Errors
    /// [`HostError::Silent`] if nobody answers, [`HostError::Version`] for what is not a known monitor, [`HostError::NotReady`].
    pub async fn wait_ready(&mut self, within: Duration) -> Result<Kernel> {
        let start = self.link.now();
        loop {
            let kernel = self.version(Endpoint::core(ChipAddress::ROOT, 0)).await?;
            if kernel.name != "SC&MP" || !(3..=4).contains(&kernel.version.0) {
                let board = self.link.board();
                return Err(HostError::Version { board, name: kernel.name, version: kernel.version });
            }
            if kernel.chip != ChipAddress::ROOT {
                let timeout = Some(TimeoutCode::TRANSIENT_DEFAULT);
                let command = Command::IpTag(iptag::Command::TransientTimeout { timeout });
                self.request(Endpoint::core(kernel.chip, 0), &command).await?;
                return Ok(kernel);
            }
            let waited = self.link.now().saturating_sub(start);
            if waited >= within {
                return Err(HostError::NotReady { board: self.link.board(), waited });
            }
            self.pause(Duration::from_millis(100)).await?;
        }
    }
}

/// An image with what it must say of the board.
fn patched(image: &[u8], options: &BootOptions) -> Result<Vec<u8>> {
    let mut patched = image.to_vec();
    boot_image::patch(&mut patched, &BootVariables::for_board(options.board, options.unix_time_s))?;
    Ok(patched)
}
