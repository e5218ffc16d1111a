//! Management processors: power, LEDs and state of the boards of a frame.

use spinnaker_wire::bmp::{self, BoardStatus, InfoKind, Request, ResetAction};
use spinnaker_wire::scp::{self, Command};

use crate::link::{Link, UdpLink};
use crate::{HostError, Kernel, Options, Result, Transceiver};

/// Milliseconds between two boards that are switched: all at once would load the supply.
const DELAY_MS: u16 = 0;

/// A connection to the management processor of a frame, or of a board that stands alone.
pub struct Bmp<L> {
    transceiver: Transceiver<L>,
}

impl Bmp<UdpLink> {
    /// A connection over UDP to a host name or address.
    ///
    /// # Errors
    /// [`HostError::NoSuchHost`], [`HostError::Io`].
    pub async fn connect(host: &str, port: u16) -> Result<Self> {
        Ok(Self { transceiver: Transceiver::connect_ports(host, port, spinnaker_wire::boot::UDP_PORT).await? })
    }
}

impl<L: Link> Bmp<L> {
    /// A connection over any link.
    pub fn over(link: L, options: Options) -> Self {
        Self { transceiver: Transceiver::over(link, options) }
    }

    /// The way to the processor.
    pub fn link(&mut self) -> &mut L {
        self.transceiver.link()
    }

    async fn request(&mut self, board: u8, command: bmp::Command<'_>) -> Result<Vec<u8>> {
        let request = Request { seq: 0, command };
        let mut body = vec![0; request.buffer_len()];
        request.emit(&mut body)?;
        let packet = scp::Packet::new_checked(&body)?;
        let (args, data) = packet.arguments()?;
        let args = [args.arg1.get(), args.arg2.get(), args.arg3.get()];
        let command = Command::Other { code: packet.command_code(), args, data };
        self.transceiver.request(bmp::board(board), &command).await
    }

    /// Who answers for a board of the frame.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn version(&mut self, board: u8) -> Result<Kernel> {
        self.transceiver.version(bmp::board(board)).await
    }

    /// Switches boards on (off and on again, if they were on) or off, and waits until that is done.
    ///
    /// # Errors
    /// [`HostError::Argument`] for a board that no frame has, and those of [`Transceiver::request`].
    pub async fn power(&mut self, on: bool, boards: &[u8]) -> Result<()> {
        let boards = mask(boards)?;
        self.request(0, bmp::Command::Power { on, delay_ms: DELAY_MS, boards }).await.map(drop)
    }

    /// Resets boards.
    ///
    /// # Errors
    /// As [`Bmp::power`].
    pub async fn reset(&mut self, boards: &[u8]) -> Result<()> {
        let boards = mask(boards)?;
        let command = bmp::Command::Reset { action: ResetAction::Pulse, fpgas: false, delay_ms: DELAY_MS, boards };
        self.request(0, command).await.map(drop)
    }

    /// Switches LEDs of boards; see [`spinnaker_wire::scp::LedAction`].
    ///
    /// # Errors
    /// As [`Bmp::power`].
    pub async fn leds(&mut self, actions: u32, boards: &[u8]) -> Result<()> {
        let boards = mask(boards)?;
        self.request(0, bmp::Command::Led { actions, boards }).await.map(drop)
    }

    /// Voltages, temperatures and fans of a board.
    ///
    /// # Errors
    /// As [`Transceiver::request`], and [`HostError::Wire`] for an answer that is too short.
    pub async fn status(&mut self, board: u8) -> Result<BoardStatus> {
        let payload = self.request(board, bmp::Command::Info(InfoKind::Board)).await?;
        Ok(*BoardStatus::read(&payload)?)
    }

    /// Registers of an FPGA (0 to 2) of a board, such as those that stop the links to other boards.
    ///
    /// # Errors
    /// [`HostError::Argument`] for what no board has, [`HostError::NoData`] for an answer that is too short, and those of
    /// [`Transceiver::request`].
    pub async fn fpga_registers(&mut self, board: u8, fpga: u8, address: u32, words: usize) -> Result<Vec<u32>> {
        check_registers(fpga, address, words)?;
        let length_bytes = words as u32 * 4;
        let command = bmp::Command::FpgaRead { address, length_bytes, fpga: fpga.into() };
        let payload = self.request(board, command).await?;
        if payload.len() < words * 4 {
            let (destination, needed_bytes, got_bytes) = (bmp::board(board), words * 4, payload.len());
            return Err(HostError::NoData { command: command.code(), destination, needed_bytes, got_bytes });
        }
        Ok(payload.as_chunks().0.iter().take(words).map(|word| u32::from_le_bytes(*word)).collect())
    }

    /// Writes registers of an FPGA of a board.
    ///
    /// # Errors
    /// [`HostError::Argument`] for what no board has, and those of [`Transceiver::request`].
    pub async fn set_fpga_registers(&mut self, board: u8, fpga: u8, address: u32, words: &[u32]) -> Result<()> {
        check_registers(fpga, address, words.len())?;
        let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let command = bmp::Command::FpgaWrite { address, fpga: fpga.into(), data: &data };
        self.request(board, command).await.map(drop)
    }
}

fn check_registers(fpga: u8, address: u32, words: usize) -> Result<()> {
    if fpga > 2 || !address.is_multiple_of(4) || words * 4 > scp::DATA_BYTES_MAX {
        return Err(HostError::Argument(format!(
            "{words} registers of FPGA {fpga} at {address:#x}: there are FPGAs 0 to 2, whole words, and up to 64 at a time"
        )));
    }
    Ok(())
}

fn mask(boards: &[u8]) -> Result<u32> {
    boards.iter().try_fold(0, |mask, board| match board {
        0..bmp::BOARDS_MAX => Ok(mask | 1 << board),
        _ => Err(HostError::Argument(format!(
            "board {board} of a frame: frames have boards 0 to {}",
            bmp::BOARDS_MAX - 1
        ))),
    })
}
