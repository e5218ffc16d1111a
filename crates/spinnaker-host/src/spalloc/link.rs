//! The boards of a job as [`Link`]s.

use std::io;
use std::time::Duration;

use spinnaker_wire::{ChipAddress, boot, sdp};
use tokio::time::Instant;

use super::{BoardChannel, Job, Result};
use crate::{Channel, Link};

/// The way to one board of a [`Job`].
pub struct JobLink {
    board: String,
    scp: BoardChannel,
    boot: BoardChannel,
    start: Instant,
}

impl Job {
    /// A link to a board, by its Ethernet chip.
    ///
    /// # Errors
    /// As [`Job::connect`].
    pub async fn link(&self, chip: ChipAddress) -> Result<JobLink> {
        let host = self.machine_info().boards.iter().find(|board| board.chip == chip).map(|board| board.host.clone());
        Ok(JobLink {
            board: host.unwrap_or_else(|| format!("board of chip {chip}")),
            scp: self.connect(chip, sdp::UDP_PORT).await?,
            boot: self.connect(chip, boot::UDP_PORT).await?,
            start: Instant::now(),
        })
    }
}

impl Link for JobLink {
    fn board(&self) -> String {
        self.board.clone()
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn send(&mut self, channel: Channel, datagram: &[u8]) -> io::Result<()> {
        let way = if channel == Channel::Scp { &self.scp } else { &self.boot };
        way.send(datagram).await.map_err(io::Error::other)
    }

    async fn receive(&mut self, channel: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>> {
        let way = if channel == Channel::Scp { &mut self.scp } else { &mut self.boot };
        match tokio::time::timeout_at(self.start + deadline, way.receive()).await {
            Err(_) => Ok(None),
            Ok(received) => {
                let datagram = received.map_err(io::Error::other)?;
                let length = datagram.len().min(buffer.len());
                buffer[..length].copy_from_slice(&datagram[..length]);
                Ok(Some(length))
            }
        }
    }
}
