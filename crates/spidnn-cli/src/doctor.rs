//! `spidnn doctor`: checks of the way to a machine.

use std::time::Instant;

use serde_json::{Map, json};
use spidnn::Error;
use spidnn::doctor::{Check, Outcome, examine};

use crate::output::Answer;

/// Examines; the command fails if something is bad.
///
/// # Errors
/// A locator with a mistake.
pub fn run(locator: &str) -> Result<Answer, Error> {
    let started = Instant::now();
    let checks = examine(locator)?;
    let mut json = Map::new();
    json.insert("machine".into(), json!({ "locator": locator }));
    let failed = checks.iter().any(|check| check.outcome == Outcome::Bad);
    json.insert("healthy".into(), json!(!failed));
    json.insert(
        "checks".into(),
        checks
            .iter()
            .map(|c| {
                json!({
                    "name": c.name,
                    "outcome": word(c.outcome),
                    "found": c.found,
                    "remedy": c.remedy,
                })
            })
            .collect(),
    );
    json.insert("wall_time_s".into(), json!(started.elapsed().as_secs_f64()));
    let text = checks.iter().map(line).collect();
    Ok(Answer { text, json, failed })
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Good => "good",
        Outcome::Note => "note",
        Outcome::Bad => "bad",
    }
}

fn line(check: &Check) -> String {
    let mut line = format!("{:<5} {}: {}\n", word(check.outcome), check.name, check.found);
    if let Some(remedy) = &check.remedy {
        line.push_str(&format!("      to do: {remedy}\n"));
    }
    line
}
