//! Progress bars on standard error, hidden when nobody watches.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use spidnn::{Callback, Error, Logs, Trainer};

/// A bar for each epoch, with loss, metrics, and samples per second of machine time and wall time; a line after each epoch.
pub struct FitProgress {
    samples: usize,
    quiet: bool,
    bar: ProgressBar,
    epoch_started: Instant,
    machine_started_s: f64,
}

impl FitProgress {
    /// Progress of a fit over so many samples an epoch.
    pub fn new(samples: usize, quiet: bool) -> FitProgress {
        FitProgress {
            samples,
            quiet,
            bar: ProgressBar::hidden(),
            epoch_started: Instant::now(),
            machine_started_s: 0.0,
        }
    }

    fn rates(&self, done: usize, trainer: &dyn Trainer) -> String {
        let machine_s = trainer.usage().machine_time_s - self.machine_started_s;
        let wall_s = self.epoch_started.elapsed().as_secs_f64();
        format!(
            "{:.0} samples/s machine, {:.0} wall",
            done as f64 / machine_s.max(1e-9),
            done as f64 / wall_s.max(1e-9)
        )
    }
}

impl Callback for FitProgress {
    fn on_epoch_begin(&mut self, epoch: usize, trainer: &mut dyn Trainer) -> Result<(), Error> {
        self.epoch_started = Instant::now();
        self.machine_started_s = trainer.usage().machine_time_s;
        let hidden = self.quiet || !std::io::stderr().is_terminal();
        self.bar = ProgressBar::with_draw_target(
            Some(self.samples as u64),
            if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(5) },
        );
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {msg}") {
            self.bar.set_style(style);
        }
        self.bar.set_prefix(format!("epoch {}/{}", epoch + 1, trainer.epochs()));
        self.bar.enable_steady_tick(Duration::from_millis(500));
        Ok(())
    }

    fn on_batch_end(&mut self, _: usize, logs: &Logs, trainer: &mut dyn Trainer) -> Result<(), Error> {
        if !self.bar.is_hidden() {
            self.bar.set_position(trainer.samples_done() as u64);
            self.bar.set_message(format!("{logs} ({})", self.rates(trainer.samples_done(), trainer)));
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: usize, logs: &Logs, trainer: &mut dyn Trainer) -> Result<(), Error> {
        self.bar.finish_and_clear();
        if !self.quiet {
            eprintln!("epoch {}/{} - {logs} ({})", epoch + 1, trainer.epochs(), self.rates(self.samples, trainer));
        }
        Ok(())
    }

    fn on_fit_end(&mut self, _: &mut dyn Trainer) -> Result<(), Error> {
        self.bar.finish_and_clear();
        Ok(())
    }
}
