//! The host's side: its link, loading, signals, looking at cores.

use std::rc::Rc;

use spinnaker_machine::{ChipXy, ROUTING_ENTRIES_MAX, RoutingEntry};

use super::{
    CoreSim, Counters, ENERGY_MODEL, Energy, HOST_PACKET_BYTES, HOST_TRIES_MAX, HostTransfer, Program, Simulator,
    TransferId, draws_below, kind, mix,
};
use crate::SimError;
use crate::core::{CoreCell, CoreHandle, CoreState, Costs};
use crate::memory::Op;
use crate::sdram::sdram_word;

impl Simulator {
    /// Books the host's link to a chip for a transfer; says when it is over. Packets follow each other on the wire, the
    /// round trip of the last counts once; a lost packet is sent again after the host's wait, lost ones of
    /// one round together.
    fn book(&mut self, chip: u32, bytes: usize, packet_ns: u64) -> Result<u64, SimError> {
        let timing = self.config.timing;
        let packets = bytes.div_ceil(HOST_PACKET_BYTES).max(1) as u64;
        let scaled = |ns: u64| (ns as f64 * 100.0 / self.config.host_mbps) as u64;
        let mut time_ns = packets * scaled(packet_ns) + timing.host_round_trip_ns;
        if self.config.host_drop_probability > 0.0 {
            let mut left = packets;
            let mut tries = 0;
            while left > 0 {
                let first = self.host_packets;
                self.host_packets += left;
                let seed = self.config.seed ^ 0x686F_7374;
                let probability = self.config.host_drop_probability;
                left = (first..self.host_packets).filter(|&n| draws_below(seed, n, probability)).count() as u64;
                if left > 0 {
                    tries += 1;
                    if tries == HOST_TRIES_MAX {
                        return Err(SimError::HostTimeout(self.chips[chip as usize].xy, tries));
                    }
                    self.counters.host_resent += left;
                    time_ns += timing.host_retry_ns + left * scaled(packet_ns);
                }
            }
        }
        let free_ns = &mut self.host_free_ns[self.chips[chip as usize].board as usize];
        let end_ns = self.now_ns.max(*free_ns) + time_ns;
        // The wire is free for others while the last answer is under way.
        *free_ns = end_ns - timing.host_round_trip_ns;
        self.counters.host_bytes += bytes as u64;
        Ok(end_ns)
    }

    fn address(&self, chip: u32, address: u32, words: usize) -> Result<usize, SimError> {
        let xy = self.chips[chip as usize].xy;
        sdram_word(address, words).ok_or(SimError::Address { chip: xy, address, words })
    }

    /// Writes to a chip's SDRAM through the host link and waits for the end; the machine goes on meanwhile. Addresses are those of a
    /// core (from `0x6000_0000` on).
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::Address`], [`SimError::HostTimeout`].
    pub fn write_sdram(&mut self, chip: ChipXy, address: u32, words: &[u32]) -> Result<(), SimError> {
        let chip = self.chip(chip)?;
        let word = self.address(chip, address, words.len())?;
        let end_ns = self.book(chip, words.len() * 4, self.config.timing.host_write_packet_ns)?;
        self.advance(end_ns);
        self.memories.with(chip, |memory| memory.sdram.write(word, words));
        Ok(())
    }

    /// Reads a chip's SDRAM through the host link; the machine goes on meanwhile.
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::Address`], [`SimError::HostTimeout`].
    pub fn read_sdram(&mut self, chip: ChipXy, address: u32, words: usize) -> Result<Vec<u32>, SimError> {
        let chip = self.chip(chip)?;
        let word = self.address(chip, address, words)?;
        let end_ns = self.book(chip, words * 4, self.config.timing.host_read_packet_ns)?;
        self.advance(end_ns);
        let mut out = vec![0; words];
        self.memories.with(chip, |memory| memory.sdram.read(word, &mut out));
        Ok(out)
    }

    /// Reads several places, all requests under way at once: the round trip is waited for once for each board. The content is that
    /// at the end of the last read.
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::Address`], [`SimError::HostTimeout`].
    pub fn read_sdram_many(&mut self, places: &[(ChipXy, u32, usize)]) -> Result<Vec<Vec<u32>>, SimError> {
        let mut end_ns = self.now_ns;
        let mut found = Vec::with_capacity(places.len());
        for &(chip, address, words) in places {
            let chip = self.chip(chip)?;
            found.push((chip, self.address(chip, address, words)?, words));
            end_ns = end_ns.max(self.book(chip, words * 4, self.config.timing.host_read_packet_ns)?);
        }
        self.advance(end_ns);
        let read = |(chip, word, words): (u32, usize, usize)| {
            let mut out = vec![0; words];
            self.memories.with(chip, |memory| memory.sdram.read(word, &mut out));
            out
        };
        Ok(found.into_iter().map(read).collect())
    }

    /// Begins a write that goes on while the machine runs. It follows what the link to the chip's board has to do already;
    /// the content appears at its end.
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::Address`], [`SimError::HostTimeout`].
    pub fn queue_write(&mut self, chip: ChipXy, address: u32, words: Vec<u32>) -> Result<TransferId, SimError> {
        let chip = self.chip(chip)?;
        let word = self.address(chip, address, words.len())?;
        let end_ns = self.book(chip, words.len() * 4, self.config.timing.host_write_packet_ns)?;
        let id = self.host_transfers.len() as u32;
        self.host_pending += 1;
        self.host_transfers.push(HostTransfer { chip, word, words, done: false });
        self.queue.push(end_ns, kind::HOST, id);
        Ok(TransferId(id))
    }

    /// Whether a background transfer is over.
    pub fn transfer_done(&self, id: TransferId) -> bool {
        self.host_transfers.get(id.0 as usize).is_some_and(|transfer| transfer.done)
    }

    /// Whether all background transfers are over.
    pub fn transfers_done(&self) -> bool {
        self.host_pending == 0
    }

    /// Waits for the end of all background transfers; the machine goes on meanwhile.
    pub fn wait_transfers(&mut self) {
        while !self.transfers_done() && self.step() {}
    }

    /// Lets machine time pass.
    pub fn pass_ns(&mut self, ns: u64) {
        self.advance(self.now_ns + ns);
    }

    /// Loads a chip's routing table (written to SDRAM, then taken over by the monitor).
    ///
    /// # Errors
    /// [`SimError::NoChip`]; [`SimError::TableFull`] above [`ROUTING_ENTRIES_MAX`]; [`SimError::HostTimeout`].
    pub fn load_routes(&mut self, chip: ChipXy, entries: &[RoutingEntry]) -> Result<(), SimError> {
        let index = self.chip(chip)?;
        if entries.len() > ROUTING_ENTRIES_MAX {
            return Err(SimError::TableFull { chip, entries: entries.len(), max: ROUTING_ENTRIES_MAX });
        }
        let end_ns = self.book(index, entries.len() * 16, self.config.timing.host_write_packet_ns)?;
        self.advance(end_ns);
        self.chips[index as usize].router.table.load(entries);
        Ok(())
    }

    /// Time of loading an application's code: `bytes` are flooded over each board (all boards at once) and started.
    ///
    /// # Errors
    /// [`SimError::HostTimeout`].
    pub fn load_application(&mut self, bytes: usize) -> Result<(), SimError> {
        let mut end_ns = self.now_ns;
        for board in 0..self.host_free_ns.len() as u32 {
            if let Some(chip) = self.chips.iter().position(|chip| chip.board == board) {
                end_ns = end_ns.max(self.book(chip as u32, bytes, self.config.timing.host_write_packet_ns)?);
            }
        }
        self.advance(end_ns);
        Ok(())
    }

    /// Puts a program on a core and starts it. It runs from the next [`Simulator::run`] on; at its
    /// [`CoreHandle::wait_start`] it becomes ready. The cost of loading code is [`Simulator::load_application`].
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::NoCore`], [`SimError::Loaded`].
    pub fn load_program(&mut self, chip: ChipXy, core: u8, program: Program) -> Result<(), SimError> {
        let chip_index = self.chip(chip)?;
        let place = self.place(chip, core).ok_or(SimError::NoCore(chip, core))?;
        if self.core_index.contains_key(&(chip, core)) {
            return Err(SimError::Loaded(chip, core));
        }
        let index = self.cores.len() as u32;
        let costs = Costs::new(&self.config);
        let cell =
            Rc::new(CoreCell::new((chip, chip_index), (core, place), costs, Rc::clone(&self.memories), self.now_ns));
        let future = program(CoreHandle::new(Rc::clone(&cell)));
        self.cores.push(CoreSim {
            cell,
            program: Some(future),
            chip: chip_index,
            active: None,
            waiting: None,
            row_given_ns: 0,
            row_handled_ns: 0,
            timer_ns: u64::MAX,
            later_ns: u64::MAX,
            receive_free_ns: 0,
            receive_work_ns: 0,
        });
        self.core_index.insert((chip, core), index);
        self.chips[chip_index as usize].cores[usize::from(core)] = index;
        self.running += 1;
        self.wake_at(index, self.now_ns);
        Ok(())
    }

    /// Which of its chip's working cores a core is.
    pub(super) fn place(&self, chip: ChipXy, core: u8) -> Option<u32> {
        if self.lost_cores.contains(&(chip, core)) {
            return None;
        }
        self.machine.chips.get(&chip)?.cores.binary_search(&core).ok().map(|place| place as u32)
    }

    /// The host's stop signal: takes all programs off, so that others can be loaded. SDRAM and routing tables stay;
    /// data memories are zero for the next program. Cores that died no longer belong to the machine.
    pub fn stop_all(&mut self) {
        // Packets and transfers under way come to their end meanwhile.
        self.advance(self.now_ns + self.config.timing.host_round_trip_ns);
        let loaded: Vec<((ChipXy, u8), u32)> = std::mem::take(&mut self.core_index).into_iter().collect();
        for (place, index) in loaded {
            self.take_off(place, index);
        }
        (self.running, self.failed_ns) = (0, None);
    }

    /// Takes the program off a core that is no longer in the index; its state until then.
    pub(super) fn take_off(&mut self, (xy, number): (ChipXy, u8), index: u32) -> CoreState {
        self.halt(index);
        let sim = &self.cores[index as usize];
        self.chips[sim.chip as usize].cores[usize::from(number)] = u32::MAX;
        sim.cell.note(Op::Clear);
        let state = {
            let inner = &mut *sim.cell.inner.borrow_mut();
            inner.gone = true;
            std::mem::replace(&mut inner.state, CoreState::Idle)
        };
        if state == CoreState::Dead {
            self.lost_cores.insert((xy, number));
        }
        state
    }

    /// The host's start signal to all cores that are ready: one command, flooded from chip to chip.
    pub fn start_all(&mut self) {
        let timing = self.config.timing;
        let mut any = vec![false; self.chips.len()];
        for core in &self.cores {
            let inner = &mut *core.cell.inner.borrow_mut();
            if inner.state == CoreState::Ready {
                inner.state = CoreState::Running;
                inner.start_sent = true;
                inner.starts = inner.starts.wrapping_add(1);
                self.running += 1;
                any[core.chip as usize] = true;
            }
        }
        for (index, chip) in self.chips.iter().enumerate().filter(|(index, _)| any[*index]) {
            let time_ns = self.now_ns + timing.host_round_trip_ns / 2 + chip.ethernet_hops * timing.signal_hop_ns;
            self.queue.push(time_ns, kind::START, index as u32);
        }
    }

    /// Makes a core die without a word at a machine time.
    ///
    /// # Errors
    /// [`SimError::NoCore`] if it has no program.
    pub fn kill_core_at(&mut self, chip: ChipXy, core: u8, time_ns: u64) -> Result<(), SimError> {
        let index = self.core(chip, core)?;
        self.queue.push(time_ns.max(self.now_ns), kind::KILL, index);
        Ok(())
    }

    /// State of a core.
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::NoCore`].
    pub fn core_state(&self, chip: ChipXy, core: u8) -> Result<CoreState, SimError> {
        self.chip(chip)?;
        if let Ok(index) = self.core(chip, core) {
            return Ok(self.cores[index as usize].cell.inner.borrow().state);
        }
        if self.place(chip, core).is_some() { Ok(CoreState::Idle) } else { Err(SimError::NoCore(chip, core)) }
    }

    /// Text that a core's program wrote.
    ///
    /// # Errors
    /// [`SimError::NoCore`] if it has no program.
    pub fn core_log(&self, chip: ChipXy, core: u8) -> Result<String, SimError> {
        let index = self.core(chip, core)?;
        Ok(self.cores[index as usize].cell.inner.borrow().log.clone())
    }

    /// Time in which a core was active, ns.
    ///
    /// # Errors
    /// [`SimError::NoCore`] if it has no program.
    pub fn core_busy_ns(&self, chip: ChipXy, core: u8) -> Result<u64, SimError> {
        let index = self.core(chip, core)?;
        Ok(self.cores[index as usize].cell.inner.borrow().busy_ns)
    }

    /// What happened since the start.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.events = self.queue.pushed();
        for core in &self.cores {
            let inner = core.cell.inner.borrow();
            counters.busy_ns += inner.busy_ns;
            counters.program.iter_mut().zip(inner.counts).for_each(|(sum, count)| *sum += count);
        }
        counters
    }

    /// Energy since the start.
    pub fn energy(&self) -> Energy {
        let counters = self.counters();
        let joules = self.machine.idle_power_w * self.now_ns as f64 * 1e-9
            + 0.034 * counters.busy_ns as f64 * 1e-9
            + 25e-12 * counters.routed_bits as f64;
        Energy { joules, model: ENERGY_MODEL }
    }

    /// A number that depends on every step of every core and every packet since the start: equal for equal runs.
    pub fn digest(&self) -> u64 {
        mix(self.digest ^ self.now_ns)
    }

    /// Bytes of host memory that the machine's memories take.
    pub fn host_memory_bytes(&self) -> usize {
        let chips = 0..self.chips.len() as u32;
        let sdram: usize = chips.map(|chip| self.memories.with(chip, |memory| memory.sdram.host_bytes())).sum();
        sdram + self.cores.len() * crate::DTCM_BYTES as usize
    }
}
