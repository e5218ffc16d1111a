//! A link that loses, doubles, reorders and delays datagrams in both directions, around another link.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spinnaker_host::{Channel, Link};

/// Of 1000 datagrams each way.
const LOST: u32 = 100;
const DOUBLED: u32 = 50;
const SPIKED: u32 = 20;
/// Of a datagram: up to 2.1 ms, in any order; a spike; a copy comes right behind.
const LATENCY_US: std::ops::Range<u64> = 100..2100;
const SPIKE: Duration = Duration::from_millis(200);
const COPY_BEHIND_US: u64 = 50;

pub struct Rough<L> {
    pub inner: L,
    rng: ChaCha8Rng,
    serial: u64,
    to_board: BTreeMap<(Duration, u64), Vec<u8>>,
    to_host: BTreeMap<(Duration, u64), Vec<u8>>,
    pub lost: u64,
    pub spiked: u64,
}

impl<L: Link> Rough<L> {
    pub fn new(inner: L, seed: u64) -> Self {
        let (to_board, to_host) = (BTreeMap::new(), BTreeMap::new());
        Self { inner, rng: ChaCha8Rng::seed_from_u64(seed), serial: 0, to_board, to_host, lost: 0, spiked: 0 }
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.next_u32() % 1000 < per_mille
    }

    /// When the copies of a datagram arrive.
    fn arrivals(&mut self) -> Vec<(Duration, u64)> {
        if self.chance(LOST) {
            self.lost += 1;
            return Vec::new();
        }
        let spread_us = LATENCY_US.end - LATENCY_US.start;
        let mut at = self.inner.now() + Duration::from_micros(LATENCY_US.start + self.rng.next_u64() % spread_us);
        if self.chance(SPIKED) {
            self.spiked += 1;
            at += SPIKE;
        }
        let copies = if self.chance(DOUBLED) { 2 } else { 1 };
        let serials = self.serial..self.serial + copies;
        self.serial = serials.end;
        serials.zip(0..).map(|(serial, copy)| (at + Duration::from_micros(copy * COPY_BEHIND_US), serial)).collect()
    }
}

impl<L: Link> Link for Rough<L> {
    fn board(&self) -> String {
        self.inner.board()
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }

    async fn send(&mut self, channel: Channel, datagram: &[u8]) -> io::Result<()> {
        assert_eq!(channel, Channel::Scp, "boards here are booted");
        for arrival in self.arrivals() {
            self.to_board.insert(arrival, datagram.to_vec());
        }
        Ok(())
    }

    async fn receive(&mut self, channel: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>> {
        loop {
            let now = self.inner.now();
            while let Some(first) = self.to_board.first_entry().filter(|first| first.key().0 <= now) {
                let datagram = first.remove();
                self.inner.send(channel, &datagram).await?;
            }
            if let Some(first) = self.to_host.first_entry().filter(|first| first.key().0 <= now) {
                let datagram = first.remove();
                buffer[..datagram.len()].copy_from_slice(&datagram);
                return Ok(Some(datagram.len()));
            }
            if now >= deadline {
                return Ok(None);
            }
            let next = [&self.to_board, &self.to_host].into_iter().filter_map(|queue| queue.first_key_value());
            let until = next.map(|(key, _)| key.0).fold(deadline, Duration::min);
            let mut datagram = [0; 2048];
            if let Some(length) = self.inner.receive(channel, &mut datagram, until).await? {
                for arrival in self.arrivals() {
                    self.to_host.insert(arrival, datagram[..length].to_vec());
                }
            }
        }
    }
}
