//! A debugger on a core, over its socket.

mod common;
#[path = "common/program.rs"]
mod program;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{MS, boot};
use program::{COUNT_AT, FUNCTION, LOOP, counting};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::CycleConfig;
use spinnaker_sim::face::{CorePlace, CycleBoard, GdbBoard, VirtualBoard};

const ROOT: ChipXy = ChipXy::new(0, 0);

/// A board whose monitor counts, with a port for a debugger.
fn counting_board() -> GdbBoard {
    let mut board = CycleBoard::new(Machine::spin3(), CycleConfig::default());
    boot(board.machine(), &counting());
    GdbBoard::new(board, CorePlace { chip: ROOT, core: 0 }, Ipv4Addr::LOCALHOST, 0).expect("a port")
}

/// Lets the board run while a debugger does its work.
fn serve<T>(mut board: GdbBoard, debugger: impl FnOnce(SocketAddr) -> T + Send) -> (GdbBoard, T)
where
    T: Send,
{
    let address = board.address().expect("bound");
    let done = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let debugger = scope.spawn(|| {
            let result = debugger(address);
            done.store(true, Ordering::SeqCst);
            result
        });
        while !done.load(Ordering::SeqCst) && !debugger.is_finished() {
            let end_ns = board.now_ns() + MS / 20;
            board.run_until(end_ns);
        }
        debugger.join().expect("no panic")
    });
    (board, result)
}

/// The protocol, byte for byte.
struct Debugger(TcpStream);

impl Debugger {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("listening");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        Self(stream)
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("an answer in time");
        byte[0]
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.0.write_all(format!("${packet}#{sum:02x}").as_bytes()).expect("open");
    }

    fn answer(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = String::new();
        let mut sum = 0u8;
        loop {
            match self.byte() {
                b'#' => break,
                byte => {
                    sum = sum.wrapping_add(byte);
                    text.push(byte as char);
                }
            }
        }
        let got = [self.byte(), self.byte()];
        assert_eq!(std::str::from_utf8(&got).expect("digits"), format!("{sum:02x}"));
        self.0.write_all(b"+").expect("open");
        text
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.answer()
    }

    fn words(&mut self, packet: &str) -> Vec<u32> {
        let text = self.ask(packet);
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap_or(0);
        (0..text.len() / 8).map(|n| u32::from_le_bytes(std::array::from_fn(|i| byte(8 * n + 2 * i)))).collect()
    }

    fn pc(&mut self) -> u32 {
        self.words("g")[15]
    }

    /// Machine time as `monitor time` says it.
    fn time(&mut self) -> String {
        let command: String = "time".bytes().map(|byte| format!("{byte:02x}")).collect();
        self.send(&format!("qRcmd,{command}"));
        let mut text = Vec::new();
        loop {
            match self.answer() {
                done if done == "OK" => return String::from_utf8(text).expect("text"),
                part => {
                    let part = part.strip_prefix('O').expect("output").as_bytes().to_vec();
                    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16);
                    text.extend(part.chunks(2).map(|pair| digits(pair).expect("digits")));
                }
            }
        }
    }
}

#[test]
fn a_core_is_halted_read_stepped_and_let_go() {
    let (mut board, count) = serve(counting_board(), |address| {
        let mut gdb = Debugger::connect(address);
        assert!(gdb.ask("?").starts_with(['S', 'T']));
        let before = gdb.time();
        assert!(before.starts_with("machine time "), "{before}");

        // A breakpoint in the function: the machine runs to it and stands.
        assert_eq!(gdb.ask(&format!("Z0,{FUNCTION:x},4")), "OK");
        let mut counts = Vec::new();
        for _ in 0..3 {
            let stop = gdb.ask("c");
            assert!(stop.starts_with("T05") && stop.contains("swbreak"), "{stop}");
            let registers = gdb.words("g");
            assert_eq!((registers[15], registers[14], registers[4]), (FUNCTION, LOOP + 12, COUNT_AT));
            assert_eq!(gdb.words(&format!("m{COUNT_AT:x},4")), [registers[0]]);
            counts.push(registers[0]);
        }
        assert_eq!([counts[1] - counts[0], counts[2] - counts[1]], [1, 1], "every call stops");
        let (halted, later) = (gdb.time(), {
            std::thread::sleep(Duration::from_millis(50));
            gdb.time()
        });
        assert_eq!(halted, later, "time stands still");
        assert_ne!(halted, before);

        // Steps: the function, the return, the branch back.
        assert_eq!(gdb.ask(&format!("z0,{FUNCTION:x},4")), "OK");
        let mut way = Vec::new();
        for _ in 0..4 {
            assert!(gdb.ask("s").starts_with(['S', 'T']));
            way.push(gdb.pc());
        }
        assert_eq!(way, [FUNCTION + 4, LOOP + 12, LOOP, LOOP + 4]);

        // Memory and registers are written: the count goes on from another number.
        assert_eq!(gdb.words("m28,4"), [0xE280_0001]);
        assert_eq!(gdb.ask(&format!("M{COUNT_AT:x},4:78563412")), "OK");
        assert_eq!(gdb.words(&format!("m{COUNT_AT:x},4")), [0x1234_5678]);
        let mut registers = gdb.words("g");
        registers[0] = 0x0100_0000;
        let text: String = registers.iter().flat_map(|word| word.to_le_bytes()).map(|b| format!("{b:02x}")).collect();
        assert_eq!(gdb.ask(&format!("G{text}")), "OK");
        // System RAM, the system controller's identity, and what is not there or changes by being read.
        assert_eq!(gdb.words("me2000000,4"), [0x5911_1012]);
        assert!(gdb.ask("m80000000,4").starts_with('E'), "nothing is there");
        assert!(gdb.ask("me2000080,4").starts_with('E'), "a lock is not taken by looking");

        // It runs until it is interrupted.
        gdb.send("c");
        std::thread::sleep(Duration::from_millis(50));
        gdb.0.write_all(&[3]).expect("open");
        let stop = gdb.answer();
        assert!(stop.starts_with("T02") || stop.starts_with("S02"), "{stop}");
        let count = gdb.words("g")[0];
        assert!(count > 0x0100_0000, "{count:#x}");
        assert_eq!(gdb.ask("D"), "OK");
        count
    });
    // Let go, it runs on as ever.
    let end_ns = board.now_ns() + 2 * MS;
    board.run_until(end_ns);
    assert!(!board.is_halted());
    assert!(board.now_ns() >= end_ns);
    let mut now = [0; 4];
    let monitor = board.board().machine().physical(ROOT, 0).expect("the monitor");
    assert_eq!(board.board().machine().look(ROOT, monitor, COUNT_AT, &mut now), 4);
    assert!(u32::from_le_bytes(now) > count);
}

/// A debugger that goes away without a word, talks nonsense, or asks for a core without a number.
#[test]
fn hostile_debuggers_leave_the_machine_running() {
    let (mut board, ()) = serve(counting_board(), |address| {
        let mut gdb = Debugger::connect(address);
        assert_eq!(gdb.ask(&format!("Z0,{FUNCTION:x},4")), "OK");
        drop(gdb);
        for text in ["GET / HTTP/1.1\r\n\r\n", "$#00", "$mffffffff,ffffffff#00", "\u{3}\u{3}$c#63$c#63\u{3}", "+++---"]
        {
            let mut stream = TcpStream::connect(address).expect("listening");
            stream.write_all(text.as_bytes()).expect("open");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut gdb = Debugger::connect(address);
        assert!(gdb.ask("mfffffffe,4").starts_with(['E', '0']));
        assert_eq!(gdb.ask(&format!("Mfffffff0,{:x}:{}", 0x20, "00".repeat(0x20))).get(..1), Some("E"));
        gdb.send("k");
    });
    let end_ns = board.now_ns() + 10 * MS;
    for _ in 0..100 {
        board.run_until(end_ns);
    }
    assert!(board.now_ns() >= end_ns && !board.is_halted());

    let board = CycleBoard::new(Machine::spin3(), CycleConfig::default());
    let place = CorePlace { chip: ROOT, core: 5 };
    let board = GdbBoard::new(board, place, Ipv4Addr::LOCALHOST, 0).expect("a port");
    let (mut board, ()) = serve(board, |address| {
        let mut stream = TcpStream::connect(address).expect("listening");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0, "refused");
    });
    let log: Vec<String> = board.take_log().into_iter().map(|line| line.text).collect();
    assert!(log.iter().any(|line| line.contains("core 0,0,5 has no number yet")), "{log:?}");
}

#[test]
fn packets_and_transfers_stop_the_machine_for_a_debugger() {
    let mut board = counting_board();
    let monitor = board.board().machine().physical(ROOT, 0).expect("the monitor");
    let machine = board.board().machine();
    assert!(machine.break_on_packet(ROOT, 0x1200_0000, 0xFF00_0000));
    assert!(machine.break_on_dma(ROOT, monitor));
    assert!(!machine.break_on_packet(ChipXy::new(9, 9), 0, 0) && !machine.break_on_dma(ROOT, 18));
    let (mut board, ()) = serve(board, |address| {
        let mut gdb = Debugger::connect(address);
        // The send register: a multicast packet that nobody waits for, and one that somebody does.
        for key in ["00000013", "34000012"] {
            assert_eq!(gdb.ask(&format!("M10000008,4:{key}")), "OK");
        }
        let stop = gdb.ask("c");
        assert!(stop.starts_with("S1e") || stop.starts_with("T1e"), "SIGUSR1: {stop}");
        // A transfer of 64 bytes from system RAM to data memory: address, address, description.
        for (address, word) in [("30000004", "000000e5"), ("30000008", "00104000"), ("3000000c", "40008001")] {
            assert_eq!(gdb.ask(&format!("M{address},4:{word}")), "OK");
        }
        let stop = gdb.ask("c");
        assert!(stop.starts_with("S1f") || stop.starts_with("T1f"), "SIGUSR2: {stop}");
        gdb.send("D");
        gdb.answer();
    });
    let log: Vec<String> = board.take_log().into_iter().map(|line| line.text).collect();
    assert!(log.iter().any(|line| line.ends_with("break: packet, key 0x12000034")), "{log:?}");
    let transfer = format!("physical core {monitor}, 64 bytes from 0xe5000000 to 0x00401000");
    assert!(log.iter().any(|line| line.ends_with(&transfer)), "{log:?}");
}

#[test]
fn the_real_debugger_understands_it() {
    if Command::new("gdb-multiarch").arg("--version").output().is_err() {
        eprintln!("not run: gdb-multiarch is not installed");
        return;
    }
    let (_, output) = serve(counting_board(), |address| {
        let target = format!("target remote {address}");
        let commands = [
            "set confirm off",
            "set architecture armv5te",
            &target,
            "break *0x40",
            "continue",
            "print/x $pc",
            "stepi",
            "print/x $pc",
            "print $r1 == 2 * $r0",
            "x/xw 0x28",
            "monitor time",
            "delete",
            "detach",
        ];
        let arguments = commands.iter().flat_map(|command| ["-ex", command]);
        Command::new("gdb-multiarch").args(["-nx", "-batch"]).args(arguments).output().expect("starts")
    });
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let text = said(&output.stdout) + &said(&output.stderr);
    for wanted in
        ["Breakpoint 1, 0x00000040", "$1 = 0x40", "$2 = 0x44", "$3 = 1", "0xe2800001", "machine time", "detached"]
    {
        assert!(text.contains(wanted), "no `{wanted}` in {text}");
    }
}
