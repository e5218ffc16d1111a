//! Messages: from the wire to a monitor, between monitors, and back, each in its time.

use std::net::{Ipv4Addr, SocketAddrV4};

use spinnaker_wire::scp::{self, Request, ReturnCode};
use spinnaker_wire::sdp::{self, Endpoint, Flags};
use spinnaker_wire::{ChipAddress, CorePort};

use super::chip::address_of;
use super::{Monitors, timing};
use crate::cycle::Datagram;

/// The longest datagram that fits a frame.
const DATAGRAM_BYTES_MAX: usize = 1472;
/// Messages that a monitor has room for (SDP buffers of SC&MP).
const INBOX_MAX: usize = 32;
/// What is on its way to a board at most, as time on the wire; more is lost, as in a switch.
const WIRE_NS_MAX: u64 = 1_000_000_000;
/// Datagrams kept for a caller who does not take them.
const OUT_MAX: usize = 1 << 16;

/// A board's Ethernet.
pub(super) struct Board {
    pub chip: usize,
    pub ip: Ipv4Addr,
    /// When the wire is free, to the board and from it.
    wire_ns: [u64; 2],
}

impl Board {
    pub fn new(chip: usize, ip: Ipv4Addr) -> Self {
        Self { chip, ip, wire_ns: [0; 2] }
    }
}

/// A message, and who sent it if it came in by Ethernet.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub header: sdp::Repr,
    pub body: Vec<u8>,
    pub sender: SocketAddrV4,
}

/// What happens at a time.
pub(super) enum Event {
    /// A frame is at a board.
    Frame(usize, Datagram),
    /// A message from another chip is complete.
    Deliver(usize, Message),
    /// A monitor has worked on a message for long enough: what comes of it shows.
    Handle(usize, Message),
    /// A monitor can go on to its next message.
    Free(usize),
    /// An answer that took its time, not the monitor's.
    Answer(usize, Message),
    /// A frame has left a board.
    Out(Datagram),
}

impl Monitors {
    /// Machine time, ns.
    pub fn now_ns(&self) -> u64 {
        self.simulator.now_ns()
    }

    /// Whether nothing will happen by itself: no core runs, nothing is on its way.
    pub fn is_idle(&mut self) -> bool {
        self.events.is_empty() && self.simulator.is_quiet()
    }

    /// Lets the machine run to a time.
    pub fn run_until(&mut self, end_ns: u64) {
        self.run(end_ns, false);
    }

    /// Lets the machine run to a time, but stops as soon as there is something to [`receive`](Self::receive).
    pub fn run_to_output(&mut self, end_ns: u64) {
        self.run(end_ns, true);
    }

    fn run(&mut self, end_ns: u64, to_output: bool) {
        loop {
            if to_output && !self.out.is_empty() {
                return;
            }
            let Some((&(time_ns, number), _)) = self.events.first_key_value() else { break };
            if time_ns > end_ns {
                break;
            }
            self.simulator.run_until(time_ns);
            if let Some(event) = self.events.remove(&(time_ns, number)) {
                self.happens(event);
            }
        }
        self.simulator.run_until(end_ns);
    }

    /// The oldest datagram that has come out and was not taken yet.
    pub fn receive(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }

    /// A datagram goes to a board now. False if it gets lost at once.
    pub fn send(&mut self, datagram: &Datagram) -> bool {
        let now_ns = self.now_ns();
        let Some(number) = self.boards.iter().position(|board| self.chips[board.chip].xy == datagram.board) else {
            return false;
        };
        let full = self.boards[number].wire_ns[0] > now_ns + WIRE_NS_MAX;
        if !self.chips[self.boards[number].chip].works || datagram.data.len() > DATAGRAM_BYTES_MAX || full {
            return false;
        }
        let at_ns = self.wire(number, 0, datagram.data.len());
        if !self.loses() {
            self.push(at_ns, Event::Frame(number, datagram.clone()));
        }
        true
    }

    /// Puts a frame on a board's wire, to it or from it; when it is over.
    fn wire(&mut self, board: usize, direction: usize, bytes: usize) -> u64 {
        let now_ns = self.now_ns();
        let takes_ns = timing::wire_ns(bytes, self.simulator.config().host_mbps);
        let free_ns = &mut self.boards[board].wire_ns[direction];
        *free_ns = now_ns.max(*free_ns) + takes_ns;
        *free_ns
    }

    /// Whether the next frame between host and board gets lost.
    fn loses(&mut self) -> bool {
        self.frames += 1;
        let config = self.simulator.config();
        crate::simulator::draws_below(config.seed ^ 0x6672_616D, self.frames, config.host_drop_probability)
    }

    pub(super) fn push(&mut self, time_ns: u64, event: Event) {
        self.event_number += 1;
        self.events.insert((time_ns.max(self.now_ns()), self.event_number), event);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Frame(board, datagram) => self.frame(board, &datagram),
            Event::Deliver(chip, message) => self.enqueue(chip, message),
            Event::Handle(chip, message) => {
                let busy_ns = self.handle(chip, message);
                if busy_ns > self.now_ns() {
                    self.push(busy_ns, Event::Free(chip));
                } else {
                    self.go_on(chip);
                }
            }
            Event::Free(chip) => self.go_on(chip),
            Event::Answer(chip, message) => drop(self.handle(chip, message)),
            Event::Out(datagram) => {
                if self.out.len() < OUT_MAX {
                    self.out.push_back(datagram);
                }
            }
        }
    }

    /// A datagram is at an Ethernet chip.
    fn frame(&mut self, board: usize, datagram: &Datagram) {
        let chip = self.boards[board].chip;
        if !self.chips[chip].works {
            return;
        }
        let (now_ns, own) = (self.now_ns(), address_of(self.chips[chip].xy));
        let tags = &mut self.chips[chip].tags;
        let message = if datagram.port == sdp::UDP_PORT {
            let Ok(packet) = sdp::Packet::from_udp(&datagram.data) else { return };
            let mut header = packet.repr();
            header.source.chip = own;
            if header.flags.wants_reply() {
                if header.tag == sdp::TAG_TRANSIENT {
                    let Some(tag) = tags.take_transient(datagram.host, now_ns) else { return };
                    header.tag = tag;
                } else if !tags.is_set(header.tag, now_ns) {
                    return;
                }
            }
            Message { header, body: packet.body.to_vec(), sender: datagram.host }
        } else {
            // Any other port is that of a reverse tag, or nobody's (the boot ROM's: it has handed over long ago).
            if datagram.data.len() > sdp::BODY_BYTES_MAX {
                return;
            }
            let Some(way) = tags.way_in(datagram.port, datagram.host, now_ns) else { return };
            let destination = Endpoint { chip: way.chip, port: way.core_port };
            let source = Endpoint { chip: own, port: CorePort::ETHERNET };
            let header = sdp::Repr { flags: Flags::NO_REPLY, tag: way.tag, destination, source };
            Message { header, body: datagram.data.clone(), sender: datagram.host }
        };
        self.enqueue(chip, message);
    }

    fn enqueue(&mut self, chip: usize, message: Message) {
        let state = &mut self.chips[chip];
        if !state.works {
            return;
        }
        if state.inbox.len() >= INBOX_MAX {
            // No buffer: the monitor counts a software error.
            let block = state.block(0);
            let errors = u16::from_le_bytes([block[0x3A], block[0x3B]]).saturating_add(1);
            block[0x3A..0x3C].copy_from_slice(&errors.to_le_bytes());
            return;
        }
        state.inbox.push_back(message);
        if !state.busy {
            self.go_on(chip);
        }
    }

    /// A monitor takes its next message.
    fn go_on(&mut self, chip: usize) {
        let Some(mut message) = self.chips[chip].inbox.pop_front().filter(|_| self.chips[chip].works) else {
            self.chips[chip].busy = false;
            return;
        };
        self.chips[chip].busy = true;
        self.name_root(&mut message);
        let takes_ns = match self.next_chip(chip, &message) {
            Some(_) => self.forward_ns(chip, &message),
            None if message.header.destination.port == CorePort::ETHERNET => timing::pass_on_ns(),
            None => {
                let request = Request::parse(&message.body).ok();
                let command = request.as_ref().map(|request| &request.command);
                timing::request_ns(message.body.len(), command, self.chips[chip].links)
            }
        };
        self.push(self.now_ns() + takes_ns, Event::Handle(chip, message));
    }

    fn name_root(&self, message: &mut Message) {
        let root = address_of(self.chips[self.root].xy);
        for end in [&mut message.header.destination, &mut message.header.source] {
            if end.chip == ChipAddress::ROOT {
                end.chip = root;
            }
        }
    }

    /// Where a message has to go, if it is not for this chip.
    fn next_chip(&self, chip: usize, message: &Message) -> Option<ChipAddress> {
        let header = &message.header;
        let to = header.destination.chip;
        let stays = to == header.source.chip
            || to == address_of(self.chips[chip].xy)
            || header.flags.0 & Flags::NO_ROUTE_BIT != 0;
        // A reply of this chip goes out by the chip that it names, whoever sent the request.
        if stays { None } else { Some(to) }
    }

    fn forward_ns(&self, chip: usize, message: &Message) -> u64 {
        let hops = self.way(chip, message.header.destination.chip).map_or(0, |(_, hops)| hops);
        timing::p2p_ns(sdp::HEADER_BYTES + message.body.len(), hops)
    }

    /// The chip that point-to-point packets to an address reach, and over how many hops. The error is what the sender gets.
    fn way(&self, from: usize, to: ChipAddress) -> Result<(usize, u32), ReturnCode> {
        let mut at = from;
        for hops in 0..=self.chips.len() as u32 {
            if address_of(self.chips[at].xy) == to {
                return if self.chips[at].works { Ok((at, hops)) } else { Err(ReturnCode::P2pNoReply) };
            }
            let link = self.chips[at].p2p.entry(to).link();
            let next = link.and_then(|link| *self.chips[at].neighbours.get(usize::from(link.raw()))?);
            match next {
                Some(next) => at = next,
                None if at == from && link.is_none() => return Err(ReturnCode::NoRoute),
                None => return Err(ReturnCode::P2pNoReply),
            }
        }
        Err(ReturnCode::P2pNoReply)
    }

    /// A message is dealt with at a chip (protocols reference, 2.4). Until when the monitor has to do with sending what comes
    /// of it.
    fn handle(&mut self, chip: usize, mut message: Message) -> u64 {
        if !self.chips[chip].works {
            return 0;
        }
        self.name_root(&mut message);
        if let Some(to) = self.next_chip(chip, &message) {
            return match self.way(chip, to) {
                Ok((target, _)) => {
                    let packets = (message.body.len() + sdp::HEADER_BYTES + 2).div_ceil(3) as u64 + 4;
                    self.chips[chip].p2p_packets[0] += packets;
                    self.chips[target].p2p_packets[1] += packets;
                    self.push(self.now_ns(), Event::Deliver(target, message));
                    0
                }
                Err(code) => self.fail(chip, &message, code),
            };
        }
        let port = message.header.destination.port;
        if port == CorePort::ETHERNET {
            self.send_out(chip, &message);
            return 0;
        }
        if port.core() >= self.chips[chip].virtual_cores() {
            return self.fail(chip, &message, ReturnCode::BadCore);
        }
        if port.core() != 0 {
            let reply = if port.port() == 0 { self.kernel_command(chip, &message) } else { None };
            return reply.map_or(0, |reply| self.answer(chip, reply));
        }
        if port.port() != 0 {
            return self.fail(chip, &message, ReturnCode::BadPort);
        }
        let done = self.monitor_command(chip, &message);
        if !message.header.flags.wants_reply() || !self.chips[chip].works {
            return 0;
        }
        let seq = scp::Packet::new_checked(&message.body).map_or(0, |packet| packet.seq());
        // Whatever went wrong: this monitor says that it did not.
        let reply = reply(&message, message.header.reply(), ReturnCode::Ok, seq, &done.payload);
        if done.later_ns > 0 {
            self.push(self.now_ns() + done.later_ns, Event::Answer(chip, reply));
            return 0;
        }
        self.answer(chip, reply)
    }

    /// Tells the sender of a message why it did not arrive.
    fn fail(&mut self, chip: usize, message: &Message, code: ReturnCode) -> u64 {
        if !message.header.flags.wants_reply() {
            return 0;
        }
        let seq = scp::Packet::new_checked(&message.body).map_or(0, |packet| packet.seq());
        let reply = reply(message, message.header.reply(), code, seq, &[]);
        self.answer(chip, reply)
    }

    /// Sends a reply on its way; until when the monitor is busy with that.
    fn answer(&mut self, chip: usize, mut reply: Message) -> u64 {
        self.name_root(&mut reply);
        let to = reply.header.destination.chip;
        if to == address_of(self.chips[chip].xy) {
            if reply.header.destination.port == CorePort::ETHERNET {
                self.send_out(chip, &reply);
            }
            return 0;
        }
        let Ok((target, hops)) = self.way(chip, to) else { return 0 };
        let packets = (reply.body.len() + sdp::HEADER_BYTES + 2).div_ceil(3) as u64 + 4;
        self.chips[chip].p2p_packets[0] += packets;
        self.chips[target].p2p_packets[1] += packets;
        let end_ns = self.now_ns() + timing::p2p_ns(sdp::HEADER_BYTES + reply.body.len(), hops);
        self.push(end_ns, Event::Deliver(target, reply));
        end_ns
    }

    /// A message leaves by Ethernet, if its tag is good for that.
    fn send_out(&mut self, chip: usize, message: &Message) {
        let now_ns = self.now_ns();
        let Some(number) = self.boards.iter().position(|board| board.chip == chip) else { return };
        let Some(way) = self.chips[chip].tags.way_out(message.header.tag, now_ns) else { return };
        let data = if way.strip {
            message.body.clone()
        } else {
            let mut buffer = [0; sdp::UDP_BYTES_MAX];
            match message.header.emit_udp(&message.body, &mut buffer) {
                Ok(length) => buffer[..length].to_vec(),
                Err(_) => return,
            }
        };
        let time_ns = self.wire(number, 1, data.len());
        if !self.loses() {
            let port = way.from_port.unwrap_or(sdp::UDP_PORT);
            let board = self.chips[chip].xy;
            self.push(time_ns, Event::Out(Datagram { board, host: way.host, port, time_ns, data }));
        }
    }

    /// Switches boards, in order: on (booted anew), off, or left as they are.
    pub fn power(&mut self, changes: &[Option<bool>]) {
        for (number, change) in changes.iter().enumerate().take(self.boards.len()) {
            let Some(on) = *change else { continue };
            let ethernet = self.boards[number].chip;
            for chip in 0..self.chips.len() {
                if self.chips[chip].ethernet == ethernet {
                    self.switch(chip, on);
                }
            }
        }
    }

    fn switch(&mut self, chip: usize, on: bool) {
        self.stirred = true;
        for virtual_core in 1..self.chips[chip].virtual_cores() {
            self.stop_core(chip, virtual_core);
        }
        self.chips[chip].works = false;
        self.events.retain(
            |_, event| !matches!(event, Event::Handle(at, _) | Event::Free(at) | Event::Answer(at, _) if *at == chip),
        );
        if on {
            self.forget_tags(chip);
            self.boot(chip);
        }
    }
}

/// A reply to a message.
pub(super) fn reply(to: &Message, header: sdp::Repr, code: ReturnCode, seq: u16, payload: &[u8]) -> Message {
    let mut body = vec![0; scp::HEADER_BYTES + payload.len()];
    let length = scp::emit_reply(code, seq, payload, &mut body).unwrap_or(0);
    body.truncate(length);
    Message { header, body, sender: to.sender }
}
