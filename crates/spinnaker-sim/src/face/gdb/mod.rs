//! A debugger on a core: GDB's remote protocol on a TCP port.
//!
//! From when a debugger connects until it lets go, it has the machine: while the core is halted, the time of the whole machine
//! stands still, and of the datagrams that come meanwhile all but the first few are lost. A step lets the machine run until the
//! core has executed one instruction, so a core that sleeps stays in its step until it is woken.

mod target;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine as Stub;
use gdbstub::stub::{GdbStub, GdbStubError, SingleThreadStopReason};
use spinnaker_machine::ChipXy;

use super::{CorePlace, CycleBoard, Datagram, LogLine, VirtualBoard};
use crate::cycle::Hit;
use target::Debuggee;

/// Wait for a debugger's next words while the machine stands still.
const HALTED_WAIT: Duration = Duration::from_millis(2);
/// Longest wait for a debugger to take an answer.
const WRITE_WAIT: Duration = Duration::from_secs(2);
/// Bytes taken from a debugger at once, and reads in one turn.
const READ_BYTES: usize = 4096;
const READS: usize = 64;
/// Datagrams that a machine takes while it stands still.
const DATAGRAMS_MAX: usize = 64;

/// The connection: answers go out whole.
struct Wire {
    stream: TcpStream,
    out: Vec<u8>,
}

impl Connection for Wire {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.out.push(byte);
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        Write::write_all(&mut self.stream, &out)
    }
}

impl Wire {
    /// What has come: nothing if nothing did in time, an error if the other end has gone.
    fn read(&mut self, buffer: &mut [u8], wait: bool) -> io::Result<usize> {
        self.stream.set_nonblocking(!wait)?;
        let result = Read::read(&mut self.stream, buffer);
        self.stream.set_nonblocking(false)?;
        match result {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(0),
            other => other,
        }
    }
}

type Session = Stub<'static, Debuggee, Wire>;
type Failure = GdbStubError<std::convert::Infallible, io::Error>;

/// A board with a port for a debugger.
pub struct GdbBoard {
    target: Debuggee,
    place: CorePlace,
    listener: TcpListener,
    session: Option<Session>,
    halted: bool,
    /// Datagrams that came since the machine stands still.
    datagrams: usize,
    log: Vec<LogLine>,
}

impl GdbBoard {
    /// Opens the port (0: any that is free) for a debugger of one core.
    ///
    /// # Errors
    /// The operating system's, with the address in its text.
    pub fn new(board: CycleBoard, place: CorePlace, address: Ipv4Addr, port: u16) -> io::Result<Self> {
        let address = SocketAddrV4::new(address, port);
        let listener =
            TcpListener::bind(address).map_err(|e| io::Error::new(e.kind(), format!("{address} (TCP): {e}")))?;
        listener.set_nonblocking(true)?;
        let target = Debuggee { board, chip: place.chip, core: 0, breakpoints: BTreeSet::new(), stepping: false };
        Ok(Self { target, place, listener, session: None, halted: false, datagrams: 0, log: Vec::new() })
    }

    /// Where the debugger connects.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The board itself.
    pub fn board(&mut self) -> &mut CycleBoard {
        &mut self.target.board
    }

    /// Whether a debugger holds the machine.
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    fn say(&mut self, text: String) {
        self.log.push(LogLine { time_ns: self.target.board.now_ns(), text });
    }

    /// Hears what debuggers say; waits a little for it while the machine stands still.
    fn listen(&mut self) {
        if self.session.is_none() {
            self.accept();
        }
        let mut wait = self.halted;
        for _ in 0..READS {
            let Some(mut session) = self.session.take() else { return };
            let mut buffer = [0; READ_BYTES];
            let wire = match &mut session {
                Stub::Idle(stub) => stub.borrow_conn(),
                Stub::Running(stub) => stub.borrow_conn(),
                Stub::CtrlCInterrupt(stub) => stub.borrow_conn(),
                Stub::Disconnected(stub) => stub.borrow_conn(),
            };
            let result = match wire.read(&mut buffer, wait) {
                Ok(0) => {
                    self.session = Some(session);
                    return;
                }
                Ok(count) => self.hear(session, &buffer[..count]),
                Err(_) => Ok(None),
            };
            wait = false;
            self.keep(result);
        }
    }

    fn accept(&mut self) {
        let Ok((stream, from)) = self.listener.accept() else { return };
        let Some(core) = self.target.board.machine().physical(self.place.chip, self.place.core) else {
            self.say(format!(
                "debugger {from}: core {} has no number yet: boot the machine first (core 0 is there at once)",
                self.place
            ));
            return;
        };
        match self.begin(stream, core) {
            Ok(session) => {
                self.session = Some(session);
                self.halted = true;
                self.datagrams = 0;
                self.say(format!("debugger {from}: has core {} (physical {core})", self.place));
            }
            Err(e) => {
                self.target.let_go();
                self.say(format!("debugger {from}: {e}"));
            }
        }
    }

    fn begin(&mut self, stream: TcpStream, core: u8) -> Result<Session, Failure> {
        let prepare = |stream: &TcpStream| {
            stream.set_nonblocking(false)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(HALTED_WAIT))?;
            stream.set_write_timeout(Some(WRITE_WAIT))
        };
        self.target.core = core;
        self.target.board.machine().settle(self.place.chip, core);
        self.target.board.machine().set_halting(true);
        let _ = self.target.board.machine().take_hits();
        // A socket that refuses its settings has gone: the first answer says so.
        let _ = prepare(&stream);
        GdbStub::new(Wire { stream, out: Vec::new() }).run_state_machine(&mut self.target)
    }

    /// Passes a debugger's words on.
    fn hear(&mut self, mut session: Session, bytes: &[u8]) -> Result<Option<Session>, Failure> {
        for &byte in bytes {
            session = match session {
                Stub::Idle(stub) => stub.incoming_data(&mut self.target, byte)?,
                Stub::Running(stub) => stub.incoming_data(&mut self.target, byte)?,
                other => other,
            };
            if let Stub::CtrlCInterrupt(stub) = session {
                self.target.board.machine().settle(self.target.chip, self.target.core);
                let reason = SingleThreadStopReason::Signal(Signal::SIGINT);
                session = stub.interrupt_handled(&mut self.target, Some(reason))?;
            }
            if matches!(session, Stub::Disconnected(_)) {
                return Ok(None);
            }
        }
        Ok(Some(session))
    }

    /// What has become of a session.
    fn keep(&mut self, result: Result<Option<Session>, Failure>) {
        if let Err(e) = &result {
            self.say(format!("debugger: {e}"));
        }
        self.session = result.ok().flatten();
        let halted = matches!(self.session, Some(Stub::Idle(_)));
        if self.session.is_none() {
            self.target.let_go();
            self.say("debugger: gone, the machine goes on".into());
        }
        if halted && !self.halted {
            self.datagrams = 0;
        }
        self.halted = halted;
    }

    /// The machine has stopped at something: the debugger is told.
    fn report(&mut self) {
        let hits = self.target.board.machine().take_hits();
        let ours = (self.target.chip, self.target.core);
        let at_breakpoint = self.target.board.machine().stopped().contains(&ours);
        let reason = match hits.first() {
            Some((_, Hit::Packet { .. })) => SingleThreadStopReason::Signal(Signal::SIGUSR1),
            Some((_, Hit::Dma { .. })) => SingleThreadStopReason::Signal(Signal::SIGUSR2),
            None if !at_breakpoint => return,
            None if self.target.stepping => SingleThreadStopReason::DoneStep,
            None => SingleThreadStopReason::SwBreak(()),
        };
        let (chip, core) = ours;
        self.target.board.machine().settle(chip, core);
        if let Some(cpu) = self.target.board.machine().cpu(chip, core) {
            cpu.stop_after(None);
        }
        match self.session.take() {
            Some(Stub::Running(stub)) => {
                let result = stub.report_stop(&mut self.target, reason).map(Some);
                self.keep(result);
            }
            other => self.session = other,
        }
    }
}

impl VirtualBoard for GdbBoard {
    fn now_ns(&self) -> u64 {
        self.target.board.now_ns()
    }

    /// Lets the machine run, as far as the debugger lets it.
    fn run_until(&mut self, end_ns: u64) {
        self.listen();
        while !self.halted && self.now_ns() < end_ns {
            if self.session.is_none() {
                self.target.board.run_until(end_ns);
            } else if self.target.board.run_to_breakpoint(end_ns) {
                self.report();
            }
        }
    }

    fn boards(&self) -> Vec<(ChipXy, Ipv4Addr)> {
        self.target.board.boards()
    }

    fn send(&mut self, datagram: &Datagram) -> bool {
        self.datagrams += usize::from(self.halted);
        (!self.halted || self.datagrams <= DATAGRAMS_MAX) && self.target.board.send(datagram)
    }

    fn receive(&mut self) -> Option<Datagram> {
        self.target.board.receive()
    }

    fn power(&mut self, boards: &[Option<bool>]) {
        // Breakpoints stay; a core that was in a step comes to the debugger as soon as it executes again.
        self.target.board.power(boards);
    }

    fn take_log(&mut self) -> Vec<LogLine> {
        let mut lines = self.target.board.take_log();
        lines.append(&mut self.log);
        lines.sort_by_key(|line| line.time_ns);
        lines
    }

    fn snapshot(&mut self) -> String {
        self.target.board.snapshot()
    }
}
