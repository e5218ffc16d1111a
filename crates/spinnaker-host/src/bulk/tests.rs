//! Writes and reads over a link that loses, doubles, reorders and delays messages, to a small model of a gate.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spinnaker_wire::bulk::{BLOCK_BYTES, Extent, FRAME_BLOCKS, Message, UDP_BYTES_MAX, WINDOW_BLOCKS, is_newer};
use spinnaker_wire::sdp::{Endpoint, Repr};

use super::reading::Reading;
use super::writing::Writing;

const ADDRESS: u32 = 0x6100_0000;
/// A frame with a block on 100 Mbit/s.
const FRAME_TIME: Duration = Duration::from_micros(28);

/// Of 1000 messages each way.
#[derive(Clone, Copy)]
struct Faults {
    lost: u32,
    doubled: u32,
    /// Delayed by 200 ms.
    spiked: u32,
    /// Delayed by up to 300 microseconds.
    shuffled: u32,
}

const NONE: Faults = Faults { lost: 0, doubled: 0, spiked: 0, shuffled: 0 };
const BAD: Faults = Faults { lost: 100, doubled: 50, spiked: 5, shuffled: 200 };

/// A gate with the memory behind it, as `spinnaker_wire::bulk` says that it works.
struct Gate {
    transfer: Option<u16>,
    first: u32,
    done: Vec<bool>,
    /// Words beyond the extent must stay as they are.
    memory: Vec<u8>,
    blocks_taken: u32,
}

impl Gate {
    fn new(memory: Vec<u8>) -> Self {
        Self { transfer: None, first: 0, done: Vec::new(), memory, blocks_taken: 0 }
    }

    fn is_current(&mut self, transfer: u16, blocks: u32) -> bool {
        match self.transfer {
            Some(newest) if newest == transfer => {}
            Some(newest) if !is_newer(transfer, newest) => return false,
            _ => {
                self.transfer = Some(transfer);
                self.first = 0;
                self.done = vec![false; blocks as usize];
            }
        }
        true
    }

    fn take(&mut self, message: &Message<'_>, mut answer: impl FnMut(&Message<'_>)) {
        match *message {
            Message::Data { transfer, block, data } => {
                let window = self.first..self.first + WINDOW_BLOCKS;
                if self.transfer == Some(transfer) && window.contains(&block) && (block as usize) < self.done.len() {
                    let from = block as usize * BLOCK_BYTES;
                    self.memory[from..from + data.len()].copy_from_slice(data);
                    self.done[block as usize] = true;
                    self.blocks_taken += 1;
                }
            }
            Message::Ask { transfer, question, extent, first } => {
                if !self.is_current(transfer, extent.blocks()) {
                    return;
                }
                assert!(self.done[..first as usize].iter().all(|done| *done), "the host says what it cannot know");
                self.first = self.first.max(first);
                let mut done = [0; WINDOW_BLOCKS as usize / 32];
                for block in (self.first..self.first + WINDOW_BLOCKS).take_while(|b| (*b as usize) < self.done.len()) {
                    let place = (block % WINDOW_BLOCKS) as usize;
                    done[place / 32] |= u32::from(self.done[block as usize]) << (place % 32);
                }
                answer(&Message::Status { transfer, question, hand: extent.hand, first: self.first, done });
            }
            Message::Fetch { transfer, extent, base, wanted } => {
                if !self.is_current(transfer, extent.blocks()) {
                    return;
                }
                let mut at = 0;
                while at < 64 {
                    let run = (wanted >> at).trailing_ones().min(FRAME_BLOCKS as u32);
                    let from = (base + at) as usize * BLOCK_BYTES;
                    let end = (from + run as usize * BLOCK_BYTES).min(extent.words as usize * 4);
                    if run > 0 && from < end {
                        answer(&Message::Blocks { transfer, block: base + at, data: &self.memory[from..end] });
                    }
                    at += run.max(1);
                }
            }
            _ => panic!("{message} is not for a gate"),
        }
    }
}

/// Messages under way, and the time.
struct Net {
    now: Duration,
    faults: Faults,
    rng: ChaCha8Rng,
    /// By arrival: to the gate or to the host.
    arriving: BTreeMap<(Duration, u64), (bool, Vec<u8>)>,
    serial: u64,
    /// When each direction is free.
    free: [Duration; 2],
}

impl Net {
    fn new(seed: u64, faults: Faults) -> Self {
        Self {
            now: Duration::ZERO,
            faults,
            rng: ChaCha8Rng::seed_from_u64(seed),
            arriving: BTreeMap::new(),
            serial: 0,
            free: [Duration::ZERO; 2],
        }
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.next_u32() % 1000 < per_mille
    }

    fn send(&mut self, to_gate: bool, message: &Message<'_>) {
        let mut buffer = [0; UDP_BYTES_MAX];
        let length = message.emit_udp(&Repr::request(Endpoint::HOST), &mut buffer).unwrap();
        let free = &mut self.free[usize::from(to_gate)];
        *free = (*free).max(self.now) + FRAME_TIME;
        let at = *free;
        let copies = if self.chance(self.faults.lost) { 0 } else { 1 + u32::from(self.chance(self.faults.doubled)) };
        for _ in 0..copies {
            let mut at = at;
            if self.chance(self.faults.spiked) {
                at += Duration::from_millis(200);
            }
            if self.chance(self.faults.shuffled) {
                at += Duration::from_micros(u64::from(self.rng.next_u32() % 300));
            }
            self.serial += 1;
            self.arriving.insert((at, self.serial), (to_gate, buffer[..length].to_vec()));
        }
    }

    /// The next message for the host, up to a time.
    fn receive(&mut self, gate: Option<&mut Gate>, deadline: Duration) -> Option<Vec<u8>> {
        let mut gate = gate;
        while let Some((&(at, serial), _)) = self.arriving.first_key_value()
            && at <= deadline
        {
            let (to_gate, bytes) = self.arriving.remove(&(at, serial)).unwrap();
            self.now = self.now.max(at);
            if !to_gate {
                return Some(bytes);
            }
            if let Some(gate) = &mut gate {
                let (_, message) = Message::from_udp(&bytes).unwrap();
                gate.take(&message, |answer| self.send(false, answer));
            }
        }
        self.now = self.now.max(deadline);
        None
    }
}

fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xC0FFEE);
    let mut data = vec![0; bytes];
    rng.fill_bytes(&mut data);
    data
}

/// Writes, and gives the time and the blocks that were sent again.
fn write(net: &mut Net, gate: &mut Gate, transfer: u16, data: &[u8]) -> (Duration, u64) {
    let begin = net.now;
    let extent = Extent { hand: 3, address: ADDRESS, words: (data.len() / 4) as u32 };
    let mut writing = Writing::new(transfer, extent, data, begin);
    while !writing.is_done() {
        while let Some(message) = writing.poll_transmit(net.now) {
            net.send(true, &message);
        }
        if let Some(bytes) = net.receive(Some(gate), writing.deadline()) {
            writing.on_message(net.now, &Message::from_udp(&bytes).unwrap().1);
        }
        assert_eq!(writing.on_time(net.now), None);
    }
    (net.now - begin, writing.repeated())
}

fn read(net: &mut Net, gate: &mut Gate, transfer: u16, data: &mut [u8]) -> (Duration, u64) {
    let begin = net.now;
    let extent = Extent { hand: 3, address: ADDRESS, words: (data.len() / 4) as u32 };
    let mut reading = Reading::new(transfer, extent, data, begin);
    while !reading.is_done() {
        while let Some(message) = reading.poll_transmit(net.now) {
            net.send(true, &message);
        }
        if let Some(bytes) = net.receive(Some(gate), reading.deadline()) {
            reading.on_message(net.now, &Message::from_udp(&bytes).unwrap().1);
        }
        assert_eq!(reading.on_time(net.now), None);
    }
    (net.now - begin, reading.repeated())
}

#[test]
fn a_good_link_is_used_to_nine_tenths_and_nothing_is_sent_twice() {
    let data = content(1 << 20, 0);
    let (mut net, mut gate) = (Net::new(0, NONE), Gate::new(vec![0; 1 << 20]));
    let (time, repeated) = write(&mut net, &mut gate, 1, &data);
    assert_eq!((gate.memory == data, repeated, gate.blocks_taken), (true, 0, 4096));
    assert!(time < FRAME_TIME * 4096 * 10 / 9, "{time:?}");
    let mut back = vec![0; data.len()];
    let (time, repeated) = read(&mut net, &mut gate, 2, &mut back);
    assert_eq!((back == data, repeated), (true, 0));
    // Four blocks to a frame.
    assert!(time < FRAME_TIME * 1024 * 10 / 9, "{time:?}");
}

#[test]
fn every_transfer_over_a_bad_link_ends_right() {
    for seed in 0..100 {
        let bytes = [4, 256, 260, 2048, 16_388, 100_000, 300_000][seed as usize % 7];
        let data = content(bytes, seed);
        let mut net = Net::new(seed, BAD);
        let mut gate = Gate::new(vec![0xEE; bytes + 64]);
        // Messages of earlier transfers are still under way when the later ones begin.
        for (number, seed) in (65_534..).zip([seed + 1000, seed]) {
            let (data, transfer) = (content(bytes, seed), number as u16);
            write(&mut net, &mut gate, transfer, &data);
            assert!(gate.memory[..bytes] == data, "seed {seed}");
        }
        let mut back = vec![0; bytes];
        for transfer in [0, 1] {
            back.fill(0);
            read(&mut net, &mut gate, transfer, &mut back);
            assert!(back == data, "seed {seed}");
        }
        assert_eq!(gate.memory[bytes..], [0xEE; 64], "seed {seed}");
    }
}

#[test]
fn silence_is_an_end_in_bounded_time() {
    let data = content(10_000, 0);
    let extent = Extent { hand: 1, address: ADDRESS, words: 2500 };
    let mut net = Net::new(0, NONE);
    let mut writing = Writing::new(1, extent, &data, net.now);
    let mut back = vec![0; 10_000];
    let mut reading = Reading::new(1, extent, &mut back, net.now);
    let (mut silent, mut sent) = ((None, None), 0);
    while silent.0.is_none() || silent.1.is_none() {
        while let Some(message) = writing.poll_transmit(net.now).or_else(|| reading.poll_transmit(net.now)) {
            net.send(true, &message);
            sent += 1;
        }
        net.receive(None, writing.deadline().min(reading.deadline()));
        silent = (silent.0.or(writing.on_time(net.now)), silent.1.or(reading.on_time(net.now)));
        assert!(net.now < Duration::from_secs(6));
    }
    assert!(sent < 100, "{sent} messages to nobody");
}

#[test]
fn strangers_change_nothing() {
    let data = content(1024, 0);
    let extent = Extent { hand: 1, address: ADDRESS, words: 256 };
    let mut writing = Writing::new(7, extent, &data, Duration::ZERO);
    writing.poll_transmit(Duration::ZERO);
    let done = [u32::MAX; WINDOW_BLOCKS as usize / 32];
    for (transfer, question, hand, first) in [(6, 0, 1, 4), (7, 1, 1, 4), (7, 0, 2, 4), (7, 0, 1, 5)] {
        writing.on_message(Duration::ZERO, &Message::Status { transfer, question, hand, first, done });
        assert!(!writing.is_done());
    }
    let mut back = vec![0; 1024];
    let mut reading = Reading::new(7, extent, &mut back, Duration::ZERO);
    reading.poll_transmit(Duration::ZERO);
    for (transfer, block, bytes) in [(6, 0, 256), (7, 4, 256), (7, u32::MAX, 256), (7, 0, 252), (7, 2, 1024)] {
        reading.on_message(Duration::ZERO, &Message::Blocks { transfer, block, data: &vec![1; bytes] });
    }
    assert!(!reading.is_done());
    assert_eq!(back, vec![0; 1024]);
}
