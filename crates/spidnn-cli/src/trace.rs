//! A timeline of what the host asked of the machine: a board that notes every call and passes it on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use spidnn::board::{Board, Counters};
use spidnn::compiler::ChipImage;
use spidnn::{Error, Machine};
use spinnaker_machine::ChipXy;

/// Events in Chrome's trace format, times in microseconds of machine time.
pub type Events = Rc<RefCell<Vec<Value>>>;

struct TracedBoard {
    inner: Machine,
    events: Events,
}

/// The same machine, with every call noted in the events that come back too.
pub fn traced(machine: Machine) -> (Machine, Events) {
    let events = Events::default();
    let locator = machine.locator().to_string();
    let board = TracedBoard { inner: machine, events: Rc::clone(&events) };
    (Machine::from_board(locator, Box::new(board)), events)
}

/// The content of a trace file.
pub fn file_text(events: &Events) -> String {
    json!({ "traceEvents": *events.borrow(), "displayTimeUnit": "ms" }).to_string()
}

impl TracedBoard {
    fn note<T>(&mut self, name: &str, detail: Value, act: impl FnOnce(&mut dyn Board) -> T) -> T {
        let started_s = self.inner.board().time_s();
        let result = act(self.inner.board_mut());
        let lasted_s = self.inner.board().time_s() - started_s;
        self.events.borrow_mut().push(json!({
            "name": name, "ph": "X", "pid": 0, "tid": 0, "ts": started_s * 1e6, "dur": lasted_s * 1e6, "args": detail,
        }));
        result
    }
}

impl Board for TracedBoard {
    fn machine(&self) -> &spinnaker_machine::Machine {
        self.inner.board().machine()
    }
    fn load(&mut self, chips: &BTreeMap<ChipXy, ChipImage>) -> Result<(), Error> {
        self.note("load", json!({ "chips": chips.len() }), |b| b.load(chips))
    }
    fn announce(&mut self, bytes: &BTreeMap<ChipXy, u64>) {
        self.inner.board_mut().announce(bytes);
    }
    fn write(&mut self, chip: ChipXy, address: u32, words: Vec<u32>) -> Result<(), Error> {
        let detail = json!({ "chip": chip.to_string(), "address": address, "words": words.len() });
        self.note("write (queued)", detail, |b| b.write(chip, address, words))
    }
    fn read(&mut self, chip: ChipXy, address: u32, words: usize) -> Result<Vec<u32>, Error> {
        let detail = json!({ "chip": chip.to_string(), "address": address, "words": words });
        self.note("read", detail, |b| b.read(chip, address, words))
    }
    fn read_many(&mut self, places: &[(ChipXy, u32, usize)]) -> Result<Vec<Vec<u32>>, Error> {
        let words: usize = places.iter().map(|p| p.2).sum();
        self.note("read", json!({ "places": places.len(), "words": words }), |b| b.read_many(places))
    }
    fn start(&mut self) -> Result<(), Error> {
        self.note("start", Value::Null, |b| b.start())
    }
    fn wait(&mut self) -> Result<f64, Error> {
        self.note("run", Value::Null, |b| b.wait())
    }
    fn wait_until(&mut self, time_s: f64) -> Result<Option<f64>, Error> {
        self.note("run", Value::Null, |b| b.wait_until(time_s))
    }
    fn idle_until(&mut self, time_s: f64) -> Result<(), Error> {
        self.note("idle", Value::Null, |b| b.idle_until(time_s))
    }
    fn counters(&self) -> Counters {
        self.inner.board().counters()
    }
    fn time_s(&self) -> f64 {
        self.inner.board().time_s()
    }
    fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.inner.board_mut().set_interrupt(flag);
    }

    fn energy_model(&self) -> &'static str {
        self.inner.board().energy_model()
    }
}
