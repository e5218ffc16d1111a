//! Callbacks: what may happen between the batches and epochs of a fit. Keras' names, defaults and semantics.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use spidnn_graph::Tensor;

use crate::metrics::name_is_higher_better;
use crate::{Error, Usage};

/// The values of an epoch or a batch by name: `loss`, metrics, and the same with `val_`. In the order in which they are shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Logs(Vec<(String, f64)>);

impl Logs {
    /// The value with this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }
    /// Sets a value.
    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, v)) => *v = value,
            None => self.0.push((name, value)),
        }
    }
    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(n, v)| (n.as_str(), *v))
    }
    /// All names, in order.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(n, _)| n.as_str()).collect()
    }
}

impl fmt::Display for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.iter().enumerate() {
            write!(f, "{}{name}: {value:.4}", if i == 0 { "" } else { " - " })?;
        }
        Ok(())
    }
}

/// What a fit gave: one entry for each epoch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// Epoch numbers, from 0.
    pub epochs: Vec<usize>,
    /// Values by name, one for each epoch.
    pub values: Vec<(String, Vec<f64>)>,
    /// Whether the fit was interrupted (Ctrl-C) before its end.
    pub interrupted: bool,
}

impl History {
    /// The values with this name, one for each epoch.
    pub fn get(&self, name: &str) -> Option<&[f64]> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice())
    }
    /// The last epoch's value.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(|v| v.last().copied())
    }
    /// Appends an epoch.
    pub fn push(&mut self, epoch: usize, logs: &Logs) {
        self.epochs.push(epoch);
        for (name, value) in logs.iter() {
            match self.values.iter_mut().find(|(n, _)| n == name) {
                Some((_, values)) => values.push(value),
                None => self.values.push((name.into(), vec![value])),
            }
        }
    }
}

/// What a callback may do with the model in training.
pub trait Trainer {
    /// The weights now, in `get_weights()` order.
    ///
    /// # Errors
    /// If the machine cannot be read.
    fn weights(&mut self) -> Result<Vec<Tensor>, Error>;
    /// Replaces the weights.
    ///
    /// # Errors
    /// If shapes differ, a value is not finite, or the machine cannot be written.
    fn set_weights(&mut self, weights: &[Tensor]) -> Result<(), Error>;
    /// Learning rate of the next step.
    fn learning_rate(&self) -> f64;
    /// Sets the learning rate from the next step on, in place of whatever schedule there was.
    fn set_learning_rate(&mut self, rate: f64);
    /// Ends the fit after this epoch (from [`Callback::on_batch_end`]: after this batch).
    fn stop(&mut self);
    /// Saves the model by the file name's extension (`.keras`, `.h5`, `.weights.h5`, `.npz`).
    ///
    /// # Errors
    /// If the file cannot be written.
    fn save(&mut self, path: &Path) -> Result<(), Error>;
    /// Saves the weights alone (`.weights.h5`, `.npz`).
    ///
    /// # Errors
    /// If the file cannot be written.
    fn save_weights(&mut self, path: &Path) -> Result<(), Error>;
    /// Epochs that the fit is to have in all.
    fn epochs(&self) -> usize;
    /// Samples of this epoch that were trained on so far.
    fn samples_done(&self) -> usize;
    /// What the session has cost so far.
    fn usage(&self) -> Usage;
}

/// Called by a fit. An error ends it.
#[allow(unused_variables)]
pub trait Callback {
    /// Before the first epoch.
    ///
    /// # Errors
    /// Ends the fit.
    fn on_fit_begin(&mut self, trainer: &mut dyn Trainer) -> Result<(), Error> {
        Ok(())
    }
    /// Before an epoch (from 0).
    ///
    /// # Errors
    /// Ends the fit.
    fn on_epoch_begin(&mut self, epoch: usize, trainer: &mut dyn Trainer) -> Result<(), Error> {
        Ok(())
    }
    /// After a batch (from 0 in its epoch). `logs`: `loss` and metrics of the epoch so far.
    ///
    /// # Errors
    /// Ends the fit.
    fn on_batch_end(&mut self, batch: usize, logs: &Logs, trainer: &mut dyn Trainer) -> Result<(), Error> {
        Ok(())
    }
    /// After an epoch and its validation.
    ///
    /// # Errors
    /// Ends the fit.
    fn on_epoch_end(&mut self, epoch: usize, logs: &Logs, trainer: &mut dyn Trainer) -> Result<(), Error> {
        Ok(())
    }
    /// After the last epoch, however the fit ended (not after an error).
    ///
    /// # Errors
    /// Is the error of the fit.
    fn on_fit_end(&mut self, trainer: &mut dyn Trainer) -> Result<(), Error> {
        Ok(())
    }
}

/// A closure called after each epoch with its number, its values, and the model.
impl<F> Callback for F
where
    F: FnMut(usize, &Logs, &mut dyn Trainer) -> Result<(), Error>,
{
    fn on_epoch_end(&mut self, epoch: usize, logs: &Logs, trainer: &mut dyn Trainer) -> Result<(), Error> {
        self(epoch, logs, trainer)
    }
}

/// Which direction of a watched value is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// By the name of the value: losses and errors down, accuracies and scores up.
    #[default]
    Auto,
    /// Less is better.
    Min,
    /// More is better.
    Max,
}

impl Mode {
    fn up(self, monitor: &str) -> bool {
        match self {
            Mode::Auto => name_is_higher_better(monitor),
            Mode::Min => false,
            Mode::Max => true,
        }
    }
}

/// Whether `current` beats `best` by more than `min_delta`.
fn improves(up: bool, current: f64, best: f64, min_delta: f64) -> bool {
    if up { current - min_delta > best } else { current + min_delta < best }
}

fn missing(callback: &'static str, monitor: &str, logs: &Logs) -> Error {
    Error::Monitor { callback, monitor: monitor.into(), known: logs.names().join(", ") }
}

/// Stops when a value no longer improves.
#[derive(Debug, Clone)]
pub struct EarlyStopping {
    /// What to watch. Default `val_loss`.
    pub monitor: String,
    /// Smaller improvements do not count. Default 0.
    pub min_delta: f64,
    /// Epochs without improvement that are put up with. Default 0.
    pub patience: usize,
    /// Direction. Default by the name.
    pub mode: Mode,
    /// The value has to beat this too.
    pub baseline: Option<f64>,
    /// At the end, go back to the weights of the best epoch. Default false.
    pub restore_best_weights: bool,
    /// Epochs before this one are not looked at. Default 0.
    pub start_from_epoch: usize,
    wait: usize,
    best: Option<f64>,
    best_weights: Option<Vec<Tensor>>,
    stopped_epoch: Option<usize>,
}

impl Default for EarlyStopping {
    fn default() -> Self {
        EarlyStopping {
            monitor: "val_loss".into(),
            min_delta: 0.0,
            patience: 0,
            mode: Mode::Auto,
            baseline: None,
            restore_best_weights: false,
            start_from_epoch: 0,
            wait: 0,
            best: None,
            best_weights: None,
            stopped_epoch: None,
        }
    }
}

impl EarlyStopping {
    /// Watches a value.
    pub fn new(monitor: impl Into<String>) -> EarlyStopping {
        EarlyStopping { monitor: monitor.into(), ..Default::default() }
    }
    /// Sets how many epochs without improvement are put up with.
    pub fn patience(mut self, epochs: usize) -> Self {
        self.patience = epochs;
        self
    }
    /// Goes back to the best weights at the end.
    pub fn restore_best_weights(mut self) -> Self {
        self.restore_best_weights = true;
        self
    }
    /// The epoch (from 0) after which it stopped the fit.
    pub fn stopped_epoch(&self) -> Option<usize> {
        self.stopped_epoch
    }
}

impl Callback for EarlyStopping {
    fn on_fit_begin(&mut self, _: &mut dyn Trainer) -> Result<(), Error> {
        (self.wait, self.best, self.best_weights, self.stopped_epoch) = (0, None, None, None);
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: usize, logs: &Logs, trainer: &mut dyn Trainer) -> Result<(), Error> {
        let current = logs.get(&self.monitor).ok_or_else(|| missing("EarlyStopping", &self.monitor, logs))?;
        if epoch < self.start_from_epoch {
            return Ok(());
        }
        if self.restore_best_weights && self.best_weights.is_none() {
            // If nothing ever improves, the first epoch looked at is the best.
            self.best_weights = Some(trainer.weights()?);
        }
        self.wait += 1;
        let up = self.mode.up(&self.monitor);
        let better = |reference: Option<f64>| reference.is_none_or(|r| improves(up, current, r, self.min_delta));
        if better(self.best) {
            self.best = Some(current);
            if self.restore_best_weights {
                self.best_weights = Some(trainer.weights()?);
            }
            if better(self.baseline) {
                self.wait = 0;
            }
            return Ok(());
        }
        if self.wait >= self.patience && epoch > 0 {
            self.stopped_epoch = Some(epoch);
            trainer.stop();
        }
        Ok(())
    }

    fn on_fit_end(&mut self, trainer: &mut dyn Trainer) -> Result<(), Error> {
        match self.best_weights.take() {
            Some(weights) if self.restore_best_weights => trainer.set_weights(&weights),
            _ => Ok(()),
        }
    }
}

/// Saves the model after epochs. The path may hold `{epoch}` (from 1), `{epoch:02d}`, `{val_loss:.2f}` and the like.
#[derive(Debug, Clone)]
pub struct ModelCheckpoint {
    /// Where to.
    pub path: String,
    /// What to watch. Default `val_loss`.
    pub monitor: String,
    /// Save only when the watched value improved. Default false.
    pub save_best_only: bool,
    /// Save the weights alone. Default false.
    pub save_weights_only: bool,
    /// Direction. Default by the name.
    pub mode: Mode,
    /// The value to beat at first.
    pub initial_value_threshold: Option<f64>,
    best: Option<f64>,
}

impl ModelCheckpoint {
    /// Saves after every epoch.
    pub fn new(path: impl Into<String>) -> ModelCheckpoint {
        ModelCheckpoint {
            path: path.into(),
            monitor: "val_loss".into(),
            save_best_only: false,
            save_weights_only: false,
            mode: Mode::Auto,
            initial_value_threshold: None,
            best: None,
        }
    }
    /// Saves only when `monitor` improved.
    pub fn best_only(mut self, monitor: impl Into<String>) -> Self {
        self.monitor = monitor.into();
        self.save_best_only = true;
        self
    }
}

impl Callback for ModelCheckpoint {
    fn on_fit_begin(&mut self, _: &mut dyn Trainer) -> Result<(), Error> {
        self.best = self.best.or(self.initial_value_threshold);
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: usize, logs: &Logs, trainer: &mut dyn Trainer) -> Result<(), Error> {
        if self.save_best_only {
            let current = logs.get(&self.monitor).ok_or_else(|| missing("ModelCheckpoint", &self.monitor, logs))?;
            if self.best.is_some_and(|best| !improves(self.mode.up(&self.monitor), current, best, 0.0)) {
                return Ok(());
            }
            self.best = Some(current);
        }
        let path = PathBuf::from(fill_path(&self.path, epoch, logs));
        if self.save_weights_only { trainer.save_weights(&path) } else { trainer.save(&path) }
    }
}

/// Replaces `{name}`, `{name:02d}` and `{name:.3f}` by values; what is not known stays as it is.
fn fill_path(pattern: &str, epoch: usize, logs: &Logs) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((field, tail)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            continue;
        };
        let (name, format) = field.split_once(':').unwrap_or((field, ""));
        let digits: String = format.chars().filter(char::is_ascii_digit).collect();
        let digits: usize = digits.parse().unwrap_or(0).min(32);
        match (name, logs.get(name)) {
            ("epoch", _) => out.push_str(&format!("{:01$}", epoch + 1, digits)),
            (_, Some(value)) if format.is_empty() => out.push_str(&value.to_string()),
            (_, Some(value)) => out.push_str(&format!("{value:.digits$}")),
            _ => {
                out.push('{');
                out.push_str(field);
                out.push('}');
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Makes the learning rate smaller when a value no longer improves.
#[derive(Debug, Clone)]
pub struct ReduceLROnPlateau {
    /// What to watch. Default `val_loss`.
    pub monitor: String,
    /// Factor for the rate. Default 0.1.
    pub factor: f64,
    /// Epochs without improvement before it acts. Default 10.
    pub patience: usize,
    /// Smaller improvements do not count. Default 1e-4.
    pub min_delta: f64,
    /// Epochs to wait after a reduction. Default 0.
    pub cooldown: usize,
    /// Never below this rate. Default 0.
    pub min_lr: f64,
    /// Direction. Default by the name.
    pub mode: Mode,
    wait: usize,
    cooldown_left: usize,
    best: Option<f64>,
}

impl Default for ReduceLROnPlateau {
    fn default() -> Self {
        ReduceLROnPlateau {
            monitor: "val_loss".into(),
            factor: 0.1,
            patience: 10,
            min_delta: 1e-4,
            cooldown: 0,
            min_lr: 0.0,
            mode: Mode::Auto,
            wait: 0,
            cooldown_left: 0,
            best: None,
        }
    }
}

impl Callback for ReduceLROnPlateau {
    fn on_fit_begin(&mut self, _: &mut dyn Trainer) -> Result<(), Error> {
        if self.factor >= 1.0 {
            return Err(Error::Argument("ReduceLROnPlateau: `factor` has to be below 1".into()));
        }
        (self.wait, self.cooldown_left, self.best) = (0, 0, None);
        Ok(())
    }

    fn on_epoch_end(&mut self, _: usize, logs: &Logs, trainer: &mut dyn Trainer) -> Result<(), Error> {
        let current = logs.get(&self.monitor).ok_or_else(|| missing("ReduceLROnPlateau", &self.monitor, logs))?;
        if self.cooldown_left > 0 {
            self.cooldown_left -= 1;
            self.wait = 0;
        }
        let up = self.mode.up(&self.monitor);
        if self.best.is_none_or(|best| improves(up, current, best, self.min_delta)) {
            self.best = Some(current);
            self.wait = 0;
        } else if self.cooldown_left == 0 {
            self.wait += 1;
            if self.wait >= self.patience {
                let rate = trainer.learning_rate();
                if rate > self.min_lr {
                    trainer.set_learning_rate((rate * self.factor).max(self.min_lr));
                    self.cooldown_left = self.cooldown;
                    self.wait = 0;
                }
            }
        }
        Ok(())
    }
}

/// Writes a line for each epoch: `epoch` and every value, names sorted.
#[derive(Debug)]
pub struct CSVLogger {
    path: PathBuf,
    separator: char,
    append: bool,
    names: Vec<String>,
    file: Option<BufWriter<File>>,
}

impl CSVLogger {
    /// Starts a new file with the fit.
    pub fn new(path: impl Into<PathBuf>) -> CSVLogger {
        CSVLogger { path: path.into(), separator: ',', append: false, names: Vec::new(), file: None }
    }
    /// Goes on in an existing file, without a second heading.
    pub fn append(mut self) -> Self {
        self.append = true;
        self
    }
    /// Another separator than the comma.
    pub fn separator(mut self, separator: char) -> Self {
        self.separator = separator;
        self
    }
}

impl Callback for CSVLogger {
    fn on_fit_begin(&mut self, _: &mut dyn Trainer) -> Result<(), Error> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).append(self.append).truncate(!self.append);
        let file = options.open(&self.path).map_err(|source| Error::Write { path: self.path.clone(), source })?;
        self.names.clear();
        self.file = Some(BufWriter::new(file));
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: usize, logs: &Logs, _: &mut dyn Trainer) -> Result<(), Error> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let separator = self.separator;
        let mut line = String::new();
        if self.names.is_empty() {
            self.names = logs.names().iter().map(|n| n.to_string()).collect();
            self.names.sort_unstable();
            let empty = file.get_ref().metadata().map_or(true, |m| m.len() == 0);
            if empty {
                line.push_str("epoch");
                self.names.iter().for_each(|n| line.extend([separator].into_iter().chain(n.chars())));
                line.push('\n');
            }
        }
        line.push_str(&epoch.to_string());
        for name in &self.names {
            line.push(separator);
            line.push_str(&logs.get(name).map_or("NA".into(), |v| v.to_string()));
        }
        line.push('\n');
        file.write_all(line.as_bytes())
            .and_then(|()| file.flush())
            .map_err(|source| Error::Write { path: self.path.clone(), source })
    }

    fn on_fit_end(&mut self, _: &mut dyn Trainer) -> Result<(), Error> {
        self.file = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr1;

    /// Weights are the number of the epoch, so that restoring can be seen.
    #[derive(Default)]
    struct Fake {
        epoch: usize,
        restored: Option<f32>,
        rate: f64,
        stopped: bool,
        saved: Vec<String>,
    }

    impl Trainer for Fake {
        fn weights(&mut self) -> Result<Vec<Tensor>, Error> {
            Ok(vec![arr1(&[self.epoch as f32]).into_dyn()])
        }
        fn set_weights(&mut self, weights: &[Tensor]) -> Result<(), Error> {
            self.restored = weights[0].first().copied();
            Ok(())
        }
        fn learning_rate(&self) -> f64 {
            self.rate
        }
        fn set_learning_rate(&mut self, rate: f64) {
            self.rate = rate;
        }
        fn stop(&mut self) {
            self.stopped = true;
        }
        fn save(&mut self, path: &Path) -> Result<(), Error> {
            self.saved.push(path.display().to_string());
            Ok(())
        }
        fn save_weights(&mut self, path: &Path) -> Result<(), Error> {
            self.saved.push(format!("weights {}", path.display()));
            Ok(())
        }
        fn epochs(&self) -> usize {
            9
        }
        fn samples_done(&self) -> usize {
            0
        }
        fn usage(&self) -> Usage {
            Usage::default()
        }
    }

    fn run(callback: &mut dyn Callback, name: &str, values: &[f64]) -> Fake {
        let mut fake = Fake { rate: 1.0, ..Default::default() };
        callback.on_fit_begin(&mut fake).unwrap();
        for (epoch, &value) in values.iter().enumerate() {
            fake.epoch = epoch;
            let mut logs = Logs::default();
            logs.set(name, value);
            callback.on_epoch_end(epoch, &logs, &mut fake).unwrap();
            if fake.stopped {
                break;
            }
        }
        callback.on_fit_end(&mut fake).unwrap();
        fake
    }

    #[test]
    fn early_stopping_waits_and_restores() {
        let mut stop = EarlyStopping::new("val_loss").patience(2).restore_best_weights();
        let fake = run(&mut stop, "val_loss", &[3.0, 1.0, 2.0, 1.5, 0.5]);
        assert_eq!((fake.epoch, fake.stopped, fake.restored), (3, true, Some(1.0)));
        assert_eq!(stop.stopped_epoch(), Some(3));
        // Accuracy goes up.
        let fake = run(&mut EarlyStopping::new("val_accuracy"), "val_accuracy", &[0.1, 0.2, 0.3, 0.2, 0.9]);
        assert_eq!((fake.epoch, fake.stopped), (3, true));
        // Too small an improvement is none.
        let mut stop = EarlyStopping { min_delta: 0.5, ..EarlyStopping::new("loss") };
        assert_eq!(run(&mut stop, "loss", &[3.0, 2.0, 1.9]).epoch, 2);
        assert!(stop.stopped_epoch().is_some());
        // A baseline that is never reached.
        let mut stop = EarlyStopping { baseline: Some(0.5), patience: 1, ..EarlyStopping::new("loss") };
        let fake = run(&mut stop, "loss", &[3.0, 2.0, 2.5, 1.0]);
        assert_eq!((fake.epoch, fake.stopped), (2, true));
        // The first epochs are not looked at.
        let mut stop = EarlyStopping { start_from_epoch: 2, ..EarlyStopping::new("loss") };
        assert_eq!(run(&mut stop, "loss", &[1.0, 2.0, 3.0, 2.0, 1.0]).epoch, 4);
        assert_eq!(stop.stopped_epoch(), None);
    }

    #[test]
    fn plateau_reduces_the_rate() {
        let mut reduce = ReduceLROnPlateau { monitor: "loss".into(), patience: 2, factor: 0.5, ..Default::default() };
        assert_eq!(run(&mut reduce, "loss", &[1.0, 1.0, 1.0]).rate, 0.5);
        assert_eq!(run(&mut reduce, "loss", &[1.0, 1.0, 1.0, 1.0, 1.0]).rate, 0.25);
        reduce.cooldown = 3;
        assert_eq!(run(&mut reduce, "loss", &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]).rate, 0.5);
        reduce.min_lr = 0.8;
        assert_eq!(run(&mut reduce, "loss", &[1.0, 1.0, 1.0]).rate, 0.8);
        reduce.factor = 1.5;
        assert!(reduce.on_fit_begin(&mut Fake::default()).is_err());
    }

    #[test]
    fn checkpoints_have_names_from_values() {
        let mut all = ModelCheckpoint::new("m-{epoch:02d}-{val_loss:.2f}-{other}.keras");
        assert_eq!(
            run(&mut all, "val_loss", &[0.5, 0.256]).saved,
            ["m-01-0.50-{other}.keras", "m-02-0.26-{other}.keras"]
        );
        let mut best = ModelCheckpoint::new("b{epoch}").best_only("val_accuracy");
        best.save_weights_only = true;
        assert_eq!(run(&mut best, "val_accuracy", &[0.5, 0.4, 0.6]).saved, ["weights b1", "weights b3"]);
        let mut logs = Logs::default();
        logs.set("loss", 1.0);
        let error = best.on_epoch_end(0, &logs, &mut Fake::default()).unwrap_err().to_string();
        assert!(error.contains("val_accuracy") && error.contains("loss"), "{error}");
    }

    #[test]
    fn csv_has_one_heading() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        run(&mut CSVLogger::new(&path), "loss", &[1.0, 0.5]);
        run(&mut CSVLogger::new(&path).append(), "loss", &[0.25]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "epoch,loss\n0,1\n1,0.5\n0,0.25\n");
        let mut nowhere = CSVLogger::new(folder.path().join("no/log.csv"));
        assert!(nowhere.on_fit_begin(&mut Fake::default()).is_err());
    }

    #[test]
    fn closures_are_callbacks() {
        let mut seen = Vec::new();
        let mut closure = |epoch: usize, logs: &Logs, _: &mut dyn Trainer| {
            seen.push((epoch, logs.get("loss")));
            Ok(())
        };
        run(&mut closure, "loss", &[2.0]);
        assert_eq!(seen, [(0, Some(2.0))]);
    }
}
