//! What a monitor, or a core's kernel, answers to SCP commands (protocols reference, section 4).

use spinnaker_wire::router::{LoadEntry, P2pRoute, UNUSED_ROUTE};
use spinnaker_wire::scp::{
    self, AllocCommand, ChipInfo, Command, DATA_BYTES_MAX, Request, ReturnCode, RouterCommand, SignalTransport, Version,
};
use spinnaker_wire::vcpu::CoreState;
use spinnaker_wire::{AppId, ChipAddress, LinkId, Unit, WireError};

use super::chip::{RAM_HEAP, ROUTES, Runs, SDRAM_HEAP, TAG_TABLE, address_of};
use super::heap::Words;
use super::memory::Eye;
use super::network::{Message, reply};
use super::{Monitors, timing};

/// When SC&MP 4.0.0 and its idle kernel were built, Unix seconds.
const MONITOR_BUILT_S: u32 = 0x6557_33F4;
const KERNEL_BUILT_S: u32 = 0x6557_33F5;
/// Bytes of a fill that are written at once.
const FILL_BYTES: usize = 4096;
/// Of the system variables: the fixed route with virtual cores.
const FIXED_ROUTE: usize = 0xF4;

/// What a command comes to: the payload of its reply, and how much later it is sent.
#[derive(Default)]
pub(super) struct Done {
    pub payload: Vec<u8>,
    pub later_ns: u64,
}

impl Done {
    fn word(word: u32) -> Self {
        Self { payload: word.to_le_bytes().to_vec(), later_ns: 0 }
    }

    fn bytes(payload: Vec<u8>) -> Self {
        Self { payload, later_ns: 0 }
    }
}

/// Whether an address fits the unit of an access.
fn is_aligned(address: u32, unit: Unit) -> bool {
    match unit {
        Unit::Half => address.is_multiple_of(2),
        Unit::Word => address.is_multiple_of(4),
        _ => true,
    }
}

/// Bytes that an access by units moves: a rest that is no whole unit is left out.
fn whole_units(bytes: usize, unit: Unit) -> usize {
    match unit {
        Unit::Half => bytes & !1,
        Unit::Word => bytes & !3,
        _ => bytes,
    }
}

impl Monitors {
    /// A chip's monitor has made an access that memory does not answer: it stops, as the original does.
    pub(super) fn stop_monitor(&mut self, chip: usize, address: u32) {
        let xy = self.chips[chip].xy;
        self.say(format!(
            "chip {xy}: the monitor stops, data abort at {address:#010x} (SC&MP does so, too; switch the board's power to go on)"
        ));
        let block = self.chips[chip].block(0);
        (block[0x2C], block[0x2E]) =
            (spinnaker_wire::vcpu::RunTimeError::DataAbort.raw(), CoreState::RunTimeError.raw());
        self.chips[chip].works = false;
        self.stirred = true;
    }

    /// A command to the monitor. Where it fails the payload is empty: SC&MP 4.0.0 hides its own errors.
    pub(super) fn monitor_command(&mut self, chip: usize, message: &Message) -> Done {
        let Ok(request) = Request::parse(&message.body) else { return Done::default() };
        match request.command {
            Command::Version => {
                let chip = address_of(self.chips[chip].xy);
                Done::bytes(version("SC&MP", MONITOR_BUILT_S, 0, 0, chip))
            }
            Command::Read { address, length_bytes, unit } => self.read_command(chip, address, length_bytes, unit),
            Command::Write { address, unit, data } => {
                if data.len() <= DATA_BYTES_MAX && !matches!(unit, Unit::Unknown(_)) {
                    let data = &data[..whole_units(data.len(), unit)];
                    let done = is_aligned(address, unit) && self.write(chip, Eye::Core(0), address, data).is_ok();
                    if !done && !data.is_empty() {
                        self.stop_monitor(chip, address);
                    }
                }
                Done::default()
            }
            Command::Fill { address, word, length_bytes } => {
                if !self.fill(chip, Eye::Core(0), address, word, length_bytes) {
                    self.stop_monitor(chip, address);
                }
                Done::default()
            }
            Command::LinkRead { address, length_bytes, link } => {
                let mut data = vec![0; (length_bytes as usize).min(DATA_BYTES_MAX)];
                let found = self.neighbour_of(chip, link).filter(|_| length_bytes as usize <= DATA_BYTES_MAX);
                let read = found.map(|to| self.read(to, Eye::Neighbour, address & !3, &mut data));
                if read == Some(Ok(())) { Done::bytes(data) } else { Done::default() }
            }
            Command::LinkWrite { address, link, data } => {
                if let Some(to) = self.neighbour_of(chip, link).filter(|_| data.len() <= DATA_BYTES_MAX) {
                    // A poke that finds nothing is answered by nobody.
                    let _ = self.write(to, Eye::Neighbour, address & !3, &data[..data.len() & !3]);
                }
                Done::default()
            }
            Command::ApplicationRun(start) => {
                self.start_here(chip, spinnaker_wire::sv::SDRAM_SYS_ADDRESS, start);
                Done::default()
            }
            Command::ApplicationStart { address, start } => {
                self.start_here(chip, address, start);
                Done::default()
            }
            Command::ApplicationCopyRun { link, checksum, length_bytes, start } => {
                self.copy_and_run(chip, link, checksum, length_bytes, start)
            }
            Command::NearestNeighbour { key, payload, control } => {
                self.flood_packet(chip, key, payload, control.links());
                Done::default()
            }
            Command::FloodFillData(block) => {
                self.flood_data(chip, &block);
                Done::default()
            }
            Command::Signal { transport, word } => {
                let spreads = match transport {
                    SignalTransport::Multicast => chip == self.root,
                    SignalTransport::NearestNeighbour => self.chips[chip].links != 0,
                    _ => false,
                };
                if spreads {
                    self.signal_all(word);
                }
                Done::default()
            }
            Command::Count { app, state } => self.count(chip, &request, app, state),
            Command::Alloc(command) => Done::bytes(self.alloc(chip, command)),
            Command::Router(command) => Done::bytes(self.router(chip, command)),
            Command::IpTag(command) => {
                let now_ns = self.now_ns();
                Done::bytes(self.chips[chip].tags.execute(command, message.sender, now_ns))
            }
            Command::Info => Done::bytes(self.info(chip)),
            Command::Remap { .. } => {
                self.say(format!(
                    "chip {}: {request}: not done, a machine of fidelity fast keeps its cores",
                    self.chips[chip].xy
                ));
                Done::default()
            }
            // LEDs and time keeping show nowhere; there is no serial ROM; the rest is unknown to the monitor, too.
            Command::Led(_) | Command::Sync(_) | Command::SerialRom(_) | Command::Other { .. } => Done::default(),
        }
    }

    fn read_command(&mut self, chip: usize, address: u32, length_bytes: u32, unit: Unit) -> Done {
        if length_bytes as usize > DATA_BYTES_MAX || matches!(unit, Unit::Unknown(_)) {
            return Done::default();
        }
        // The reply has that length even if no whole unit of it is read.
        let mut data = vec![0; length_bytes as usize];
        let whole = whole_units(data.len(), unit);
        if whole > 0
            && (!is_aligned(address, unit) || self.read(chip, Eye::Core(0), address, &mut data[..whole]).is_err())
        {
            self.stop_monitor(chip, address);
            return Done::default();
        }
        Done::bytes(data)
    }

    /// Fills memory by words; false if some of it is not there.
    fn fill(&mut self, chip: usize, eye: Eye, address: u32, word: u32, length_bytes: u32) -> bool {
        if !address.is_multiple_of(4) {
            return false;
        }
        let pattern = word.to_le_bytes().repeat(FILL_BYTES / 4);
        let mut left = length_bytes & !3;
        let mut at = address;
        while left > 0 {
            let bytes = left.min(FILL_BYTES as u32);
            if self.write(chip, eye, at, &pattern[..bytes as usize]).is_err() {
                return false;
            }
            left -= bytes;
            let Some(next) = at.checked_add(bytes) else { return left == 0 };
            at = next;
        }
        true
    }

    /// The working chip behind a link.
    fn neighbour_of(&self, chip: usize, link: LinkId) -> Option<usize> {
        *self.chips[chip].neighbours.get(usize::from(link.raw()))?
    }

    fn start_here(&mut self, chip: usize, address: u32, start: scp::StartWord) {
        // The monitor's own core is no place for an application.
        if start.cores.0 & 1 != 0 {
            return;
        }
        if let Err(why) = self.start_application(chip, address, start) {
            let place = format!("chip {}", self.chips[chip].xy);
            self.tell_refusal(start.app, &place, &why);
        }
    }

    fn copy_and_run(&mut self, chip: usize, link: LinkId, checksum: u32, bytes: u32, start: scp::StartWord) -> Done {
        const FROM: u32 = spinnaker_wire::sv::SDRAM_SYS_ADDRESS;
        let Some(from) = self.neighbour_of(chip, link).filter(|from| self.chips[*from].works) else {
            return Done::default();
        };
        let mut data = vec![0; (bytes & !3).min(spinnaker_wire::sv::SDRAM_SYS_BYTES as u32) as usize];
        if !self.simulator.peek(from as u32, FROM, &mut data) || !self.simulator.poke(chip as u32, FROM, &data) {
            return Done::default();
        }
        let words = data.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let sum = words.fold(0u32, u32::wrapping_add);
        if checksum != 0 && sum & 0x1FFF_FFFF != checksum {
            return Done::word(sum);
        }
        self.start_here(chip, FROM, start);
        Done::default()
    }

    /// Counts cores on the board of an Ethernet chip. As SC&MP 4.0.0 does it: chips beyond the edge of a machine that wraps
    /// around are left out, and one count at a time is taken.
    fn count(&mut self, chip: usize, request: &Request<'_>, app: AppId, state: CoreState) -> Done {
        let now_ns = self.now_ns();
        if self.chips[chip].counting_ns > now_ns {
            return Done::default();
        }
        self.chips[chip].counting_ns = now_ns + timing::COUNT_NS;
        let own = self.chips[chip].xy;
        let mut count = 0;
        for other in 0..self.chips.len() {
            let xy = self.chips[other].xy;
            let counted = self.chips[other].ethernet == chip && xy.x >= own.x && xy.y >= own.y;
            if !counted || !self.chips[other].works {
                continue;
            }
            self.refresh_cores(other);
            for virtual_core in 1..self.chips[other].virtual_cores() {
                let is_app = self.chips[other].core(virtual_core).is_some_and(|core| core.app == app);
                count += u32::from(is_app && self.chips[other].state(virtual_core) == state);
            }
        }
        let [_, arg2, arg3] = request.command.arguments().unwrap_or_default();
        let payload = [count, arg2, arg3].iter().flat_map(|word| word.to_le_bytes()).collect();
        Done { payload, later_ns: timing::COUNT_NS }
    }

    fn info(&mut self, chip: usize) -> Vec<u8> {
        self.refresh_cores(chip);
        let mut states = [CoreState::Dead; 18];
        let cores = self.chips[chip].virtual_cores();
        for (core, state) in (0..cores).zip(&mut states) {
            *state = self.chips[chip].state(core);
        }
        let root = address_of(self.chips[self.root].xy);
        let is_root = chip == self.root;
        let ip = self.boards.iter().find(|board| board.chip == chip).map(|board| board.ip.octets());
        let ethernet = address_of(self.chips[self.chips[chip].ethernet].xy);
        let (links, parent) = (self.chips[chip].links, self.chips[chip].p2p.entry(root));
        let mut memory = self.memory(chip);
        let info = ChipInfo {
            cores,
            links,
            routes_free: ROUTES.largest(&mut memory),
            ethernet_up: ip.is_some(),
            sdram_bytes: SDRAM_HEAP.space(&mut memory).1,
            sysram_bytes: RAM_HEAP.space(&mut memory).1,
            states,
            ethernet_chip: ethernet,
            ip,
            parent: Some(if is_root { P2pRoute::Monitor } else { parent }),
        };
        let mut payload = vec![0; ChipInfo::BYTES];
        let length = info.emit(&mut payload).unwrap_or(0);
        payload.truncate(length);
        payload
    }

    fn alloc(&mut self, chip: usize, command: AllocCommand) -> Vec<u8> {
        let word = |word: u32| word.to_le_bytes().to_vec();
        self.stirred = true;
        match command {
            AllocCommand::Sdram { app, length_bytes, tag, existing } => {
                word(self.alloc_sdram(chip, app, length_bytes, tag, existing))
            }
            AllocCommand::FreeSdram { address } => {
                self.free_sdram(chip, |block| block.content() == address);
                Vec::new()
            }
            AllocCommand::FreeSdramOf { app } => {
                word(self.free_sdram(chip, |block| block.owner().is_some_and(|(owner, _)| owner == app)))
            }
            AllocCommand::Routes { app, count } => word(self.take_routes(chip, count, app).into()),
            AllocCommand::FreeRoutes { first, clear } => {
                self.free_routes(chip, clear, |block, _| u32::from(block) == first);
                Vec::new()
            }
            AllocCommand::FreeRoutesOf { app, clear } => word(self.free_routes(chip, clear, |_, owner| owner == app)),
            AllocCommand::SdramSpace => {
                let (free, largest) = SDRAM_HEAP.space(&mut self.memory(chip));
                [free, largest].iter().flat_map(|word| word.to_le_bytes()).collect()
            }
            AllocCommand::TagAddress { app, tag } => {
                word(self.memory(chip).word(TAG_TABLE + spinnaker_wire::heap::tag_offset_bytes(app, tag)))
            }
        }
    }

    fn alloc_sdram(&mut self, chip: usize, app: AppId, bytes: u32, tag: u8, existing: bool) -> u32 {
        let place = TAG_TABLE + spinnaker_wire::heap::tag_offset_bytes(app, tag);
        let mut memory = self.memory(chip);
        let there = if tag == 0 { 0 } else { memory.word(place) };
        if there != 0 {
            let blocks = SDRAM_HEAP.blocks(&mut memory);
            let same = |block: &super::heap::Block| {
                block.content() == there && Some(block.bytes()) == bytes.checked_next_multiple_of(4)
            };
            return if existing && blocks.iter().any(same) { there } else { 0 };
        }
        let Some(address) = SDRAM_HEAP.allocate(&mut memory, bytes, app, tag) else { return 0 };
        if tag != 0 {
            memory.set_word(place, address);
        }
        address
    }

    fn router(&mut self, chip: usize, command: RouterCommand) -> Vec<u8> {
        self.stirred = true;
        match command {
            RouterCommand::ClearAll => self.clear_routes(chip),
            RouterCommand::Clear { count, first } => {
                if ROUTES.clear(&mut self.memory(chip), first, count.into()) {
                    self.load_routes(chip);
                }
            }
            RouterCommand::Load { app, count, table, base } => self.load_table(chip, app, count, table, base),
            RouterCommand::WriteFixedRoute { route, .. } => {
                self.chips[chip].variable(FIXED_ROUTE, &(route & 0x00FF_FFFF).to_le_bytes());
            }
            RouterCommand::ReadFixedRoute { .. } => {
                return (0..4).map(|n| self.chips[chip].variable_byte(FIXED_ROUTE + n)).collect();
            }
        }
        Vec::new()
    }

    fn load_table(&mut self, chip: usize, app: AppId, count: u16, table: u32, base: u32) {
        let mut head = [0; 4];
        if self.read(chip, Eye::Core(0), table, &mut head).is_err() {
            return self.stop_monitor(chip, table);
        }
        // A count of 0: the table has it itself, behind the first number.
        let count = if count == 0 { u16::from_le_bytes([head[2], head[3]]) } else { count };
        if count > spinnaker_wire::router::ENTRIES {
            return;
        }
        let mut bytes = vec![0; usize::from(count) * spinnaker_wire::router::ENTRY_BYTES];
        if self.read(chip, Eye::Core(0), table, &mut bytes).is_err() {
            return self.stop_monitor(chip, table);
        }
        let mut rest = &bytes[..];
        let mut memory = self.memory(chip);
        while let Ok((entry, behind)) = LoadEntry::read(rest) {
            rest = behind;
            let index = base.wrapping_add(entry.index.get().into());
            let Some(index) = u16::try_from(index).ok().filter(|index| (1..1024).contains(index)) else { break };
            let entry = spinnaker_machine::RoutingEntry {
                key: entry.key.get(),
                mask: entry.mask.get(),
                route: spinnaker_machine::Route(entry.route.get() & !UNUSED_ROUTE),
            };
            ROUTES.set(&mut memory, index, entry, app);
        }
        self.load_routes(chip);
    }

    /// A command to a core's kernel: the official one's where nothing runs, else what the program's own answers. `None`: no
    /// answer.
    pub(super) fn kernel_command(&mut self, chip: usize, message: &Message) -> Option<Message> {
        let virtual_core = message.header.destination.port.core();
        self.refresh_cores(chip);
        if !message.header.flags.wants_reply() || self.chips[chip].state(virtual_core).is_dead() {
            return None;
        }
        let packet = scp::Packet::new_checked(&message.body).ok()?;
        let (code, payload) = match Request::parse(&message.body) {
            Ok(request) => self.execute_on_core(chip, virtual_core, &request),
            Err(WireError::Truncated { .. }) => (ReturnCode::BadLength, Vec::new()),
            Err(_) => (ReturnCode::BadArgument, Vec::new()),
        };
        // This kernel leaves the flag for a reply set.
        let header = spinnaker_wire::sdp::Repr { flags: message.header.flags, ..message.header.reply() };
        Some(reply(message, header, code, packet.seq(), &payload))
    }

    fn execute_on_core(&mut self, chip: usize, virtual_core: u8, request: &Request<'_>) -> (ReturnCode, Vec<u8>) {
        let eye = Eye::Core(virtual_core);
        let bad = (ReturnCode::BadArgument, Vec::new());
        let stop = |monitors: &mut Self| {
            let xy = monitors.chips[chip].xy;
            if let Some(number) = monitors.chips[chip].core(virtual_core).map(|core| core.number) {
                monitors.simulator.stop_core(xy, number);
            }
            let core = &mut monitors.chips[chip].cores[usize::from(virtual_core) - 1];
            core.runs = Runs::Kernel;
            let block = monitors.chips[chip].block(virtual_core);
            block[0x2C] = spinnaker_wire::vcpu::RunTimeError::DataAbort.raw();
            block[0x2E] = CoreState::RunTimeError.raw();
            (ReturnCode::Timeout, Vec::new())
        };
        match request.command {
            Command::Version => {
                let place = address_of(self.chips[chip].xy);
                let core = &self.chips[chip].cores[usize::from(virtual_core) - 1];
                let mut payload = version("SARK", KERNEL_BUILT_S, virtual_core, core.number, place);
                if let Runs::Program(application) | Runs::Waiting(application) = &core.runs {
                    payload.truncate(8);
                    payload.extend_from_slice(&application.version().to_le_bytes());
                    payload.extend_from_slice(application.title());
                }
                (ReturnCode::Ok, payload)
            }
            Command::Read { length_bytes, .. } if length_bytes as usize > DATA_BYTES_MAX => bad,
            Command::Read { unit: Unit::Unknown(_), .. } | Command::Write { unit: Unit::Unknown(_), .. } => bad,
            Command::Read { address, length_bytes, unit } => {
                let mut data = vec![0; length_bytes as usize];
                let whole = whole_units(data.len(), unit);
                let done = is_aligned(address, unit) && self.read(chip, eye, address, &mut data[..whole]).is_ok();
                if done { (ReturnCode::Ok, data) } else { stop(self) }
            }
            Command::Write { data, .. } if data.len() > DATA_BYTES_MAX => bad,
            Command::Write { address, unit, data } => {
                let data = &data[..whole_units(data.len(), unit)];
                let done = is_aligned(address, unit) && self.write(chip, eye, address, data).is_ok();
                if done { (ReturnCode::Ok, Vec::new()) } else { stop(self) }
            }
            Command::Fill { address, word, length_bytes } => {
                let done = self.fill(chip, eye, address, word, length_bytes);
                if done { (ReturnCode::Ok, Vec::new()) } else { stop(self) }
            }
            _ => (ReturnCode::BadCommand, Vec::new()),
        }
    }
}

fn version(name: &str, built_s: u32, virtual_core: u8, physical_core: u8, chip: ChipAddress) -> Vec<u8> {
    let version = Version {
        virtual_core,
        physical_core,
        chip,
        buffer_bytes: DATA_BYTES_MAX as u16,
        build_time_s: built_s,
        name,
        hardware: "SpiNNaker",
        number: (4, 0, 0),
    };
    let mut payload = vec![0; 64];
    let length = version.emit(&mut payload).unwrap_or(0);
    payload.truncate(length);
    payload
}
