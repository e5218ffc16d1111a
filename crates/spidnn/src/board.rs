//! What a session asks of a machine: memory, a start signal, and the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use spidnn_compiler::ChipImage;
use spinnaker_machine::{ChipXy, Machine};

use crate::Error;

/// What went over the wires of a machine since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counters {
    /// Multicast packets sent by cores.
    pub packets_sent: u64,
    /// Multicast packets that reached a core (a packet to several cores counts for each); `None` where nothing counts them.
    pub packets_delivered: Option<u64>,
    /// Multicast packets lost on links and in routers.
    pub packets_dropped: u64,
    /// Multicast packets sent again by the runtime.
    pub packets_resent: u64,
    /// Bytes between host and machine, both ways, without protocol overhead.
    pub host_bytes: u64,
    /// Energy, by the model of the machine; `None` where there is none.
    pub energy_j: Option<f64>,
}

/// A pause of so many seconds; none if that is negative or no number.
pub(crate) fn pause(seconds: f64) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}

/// A machine that a session drives. Writes, starts and reads are carried out in the order of the calls; a write that follows
/// a start goes on while the cores run.
pub trait Board {
    /// The machine as it was found.
    fn machine(&self) -> &Machine;
    /// Loads routing tables and core images, and starts the cores, which then wait for the start signal. What was
    /// loaded before is gone. The cores may start as late as with the first [`Board::start`].
    ///
    /// # Errors
    /// If the machine does not answer, or a core does not come up.
    fn load(&mut self, chips: &BTreeMap<ChipXy, ChipImage>) -> Result<(), Error>;
    /// Tells how many bytes will be written to each chip between the next load and its first start: a machine may choose the way of
    /// its writes by that.
    fn announce(&mut self, _bytes: &BTreeMap<ChipXy, u64>) {}
    /// Queues a write of words to a chip's SDRAM.
    ///
    /// # Errors
    /// If the machine does not answer.
    fn write(&mut self, chip: ChipXy, address: u32, words: Vec<u32>) -> Result<(), Error>;
    /// Reads words from a chip's SDRAM.
    ///
    /// # Errors
    /// If the machine does not answer.
    fn read(&mut self, chip: ChipXy, address: u32, words: usize) -> Result<Vec<u32>, Error>;
    /// Reads several places (chip, SDRAM address, words), in whatever way is fastest.
    ///
    /// # Errors
    /// If the machine does not answer.
    fn read_many(&mut self, places: &[(ChipXy, u32, usize)]) -> Result<Vec<Vec<u32>>, Error> {
        places.iter().map(|&(chip, address, words)| self.read(chip, address, words)).collect()
    }
    /// Sends the start signal to all loaded cores, after the writes so far.
    ///
    /// # Errors
    /// If the machine does not answer, or a core does not come up.
    fn start(&mut self) -> Result<(), Error>;
    /// Waits until all loaded cores wait for the next start; the seconds that the last of them took from the start signal on.
    ///
    /// # Errors
    /// [`Error::Core`] if a core failed or died.
    fn wait(&mut self) -> Result<f64, Error>;
    /// [`Board::wait`], but not beyond `time_s` of machine time (as [`Board::time_s`] counts): `None` if cores still run then. A machine
    /// that cannot interrupt its waiting may wait to the end.
    ///
    /// # Errors
    /// As [`Board::wait`].
    fn wait_until(&mut self, time_s: f64) -> Result<Option<f64>, Error> {
        let _ = time_s;
        self.wait().map(Some)
    }
    /// Lets machine time pass until `time_s` while no core runs; nothing if that time is over.
    ///
    /// # Errors
    /// If the machine does not answer.
    fn idle_until(&mut self, time_s: f64) -> Result<(), Error> {
        std::thread::sleep(pause(time_s - self.time_s()));
        Ok(())
    }
    /// What went over the wires.
    fn counters(&self) -> Counters;
    /// Time on the machine since it was opened, in seconds: simulated where the machine is.
    fn time_s(&self) -> f64;
    /// Name of the model behind [`Counters::energy_j`].
    fn energy_model(&self) -> &'static str;
    /// From now on, whatever is under way or comes ends with [`Error::Interrupted`] when the flag is set. A machine whose operations
    /// end soon by themselves may do nothing.
    fn set_interrupt(&mut self, _flag: Arc<AtomicBool>) {}
}
