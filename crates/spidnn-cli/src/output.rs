//! What a command answers: text for people, or one JSON object; and files that appear whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use spidnn::{Error, History, Logs, Machine, Session, Tensor, Usage};

/// A command's answer, in both forms.
pub struct Answer {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Map<String, Value>,
    /// Whether what was found makes the command fail.
    pub failed: bool,
}

impl Answer {
    /// Nothing more to say.
    pub fn said() -> Self {
        Self::new(String::new(), Map::new())
    }

    /// All that was asked for.
    pub fn new(text: String, json: Map<String, Value>) -> Self {
        Self { text, json, failed: false }
    }

    /// Writes one of the forms to standard output.
    pub fn print(&self, as_json: bool) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if as_json && self.json.is_empty() {
            return Ok(());
        } else if as_json {
            writeln!(out, "{}", Value::Object(self.json.clone()))?;
        } else if !self.text.is_empty() {
            writeln!(out, "{}", self.text.trim_end())?;
        }
        out.flush()
    }
}

/// The fields that every JSON answer has.
pub fn common(locator: &str, machine_chips: usize, usage: &Usage, energy_model: &str) -> Map<String, Value> {
    let c = &usage.counters;
    let value = json!({
        "machine": {
            "locator": locator,
            "chips": machine_chips,
            "chips_used": usage.chips,
            "cores_used": usage.cores,
        },
        "machine_time_s": usage.machine_time_s,
        "phase_s": { "load": usage.phases.load_s, "run": usage.phases.run_s, "read": usage.phases.read_s },
        "wall_time_s": usage.wall_time_s,
        "macs": usage.macs,
        "cycles_per_mac": usage.cycles_per_mac,
        "packets": {
            "sent": c.packets_sent,
            "delivered": c.packets_delivered,
            "dropped": c.packets_dropped,
            "resent": c.packets_resent,
        },
        "host_bytes": c.host_bytes,
        "energy_j": c.energy_j,
        "energy_model": energy_model,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The common fields for a machine on which nothing ran.
pub fn idle(machine: &Machine, started: std::time::Instant) -> Map<String, Value> {
    let board = machine.board();
    let usage = Usage {
        machine_time_s: board.time_s(),
        wall_time_s: started.elapsed().as_secs_f64(),
        counters: board.counters(),
        ..Usage::default()
    };
    common(machine.locator(), board.machine().chips.len(), &usage, board.energy_model())
}

/// The common fields of a session.
pub fn of_session(session: &Session) -> Map<String, Value> {
    let board = session.machine().board();
    common(session.machine().locator(), board.machine().chips.len(), &session.usage(), board.energy_model())
}

/// A line on time and traffic, for people.
pub fn usage_line(usage: &Usage) -> String {
    let c = &usage.counters;
    let mut line = format!(
        "machine time {:.3} s (load {:.3}, run {:.3}, read {:.3}), wall time {:.1} s; {} chips, {} cores; {:.2} core cycles per multiply-accumulate",
        usage.machine_time_s,
        usage.phases.load_s,
        usage.phases.run_s,
        usage.phases.read_s,
        usage.wall_time_s,
        usage.chips,
        usage.cores,
        usage.cycles_per_mac
    );
    if let Some(joules) = c.energy_j {
        line.push_str(&format!("; {joules:.1} J"));
    }
    if c.packets_dropped > 0 {
        line.push_str(&format!("; {} packets dropped, {} sent again", c.packets_dropped, c.packets_resent));
    }
    line
}

/// Values by name.
pub fn logs_json(logs: &Logs) -> Value {
    Value::Object(logs.iter().map(|(name, value)| (name.to_string(), json!(value))).collect())
}

/// Values by name, one for each epoch.
pub fn history_json(history: &History) -> Value {
    Value::Object(history.values.iter().map(|(name, values)| (name.clone(), json!(values))).collect())
}

/// A tensor as nested lists.
pub fn tensor_json(tensor: &Tensor) -> Value {
    fn nest(values: &mut impl Iterator<Item = f32>, shape: &[usize]) -> Value {
        match shape.split_first() {
            None => values.next().map_or(Value::Null, |v| json!(v)),
            Some((&count, rest)) => Value::Array((0..count).map(|_| nest(values, rest)).collect()),
        }
    }
    nest(&mut tensor.iter().copied(), tensor.shape())
}

/// Finds out before the work whether a file can be written there afterwards.
///
/// # Errors
/// If its extension is none of `extensions` (an empty list allows all), or its folder cannot be written.
pub fn check_output(path: &Path, extensions: &[&str]) -> Result<(), Error> {
    let name = path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    if !extensions.is_empty() && !extensions.iter().any(|e| name.ends_with(e)) {
        return Err(Error::Argument(format!(
            "the file name `{}` does not say what to write: end it in {}",
            path.display(),
            extensions.join(", ")
        )));
    }
    if path.is_dir() {
        return Err(Error::Argument(format!("`{}` is a folder: give the name of a file", path.display())));
    }
    let folder = folder_of(path);
    tempfile::NamedTempFile::new_in(&folder).map(drop).map_err(|source| Error::Write { path: path.into(), source })
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.into(),
        _ => PathBuf::from("."),
    }
}

/// Writes a text file that appears whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.into(), source };
    let mut file = tempfile::NamedTempFile::new_in(folder_of(path)).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.persist(path).map(drop).map_err(|e| failed(e.error))
}
