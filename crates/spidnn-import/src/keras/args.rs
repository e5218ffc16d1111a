//! The arguments of one object of a Keras configuration: taken by name, checked, and the rest looked at, so that nothing
//! that matters is passed over in silence.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{Problem, limits};

/// The configuration of one layer, with the problems found in it.
pub(crate) struct Args<'a> {
    layer: &'a str,
    config: &'a Map<String, Value>,
    used: BTreeSet<&'a str>,
    problems: &'a mut Vec<Problem>,
}

/// A short form of a value for messages.
pub(crate) fn show(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A number, also one that Keras wrote as a NumPy scalar.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Object(object) => object
            .get("value")
            .or_else(|| object.get("config").and_then(|config| config.get("value")))
            .and_then(Value::as_f64),
        _ => None,
    }
}

/// A value that says "nothing special" whatever the key.
fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

impl<'a> Args<'a> {
    pub(crate) fn new(layer: &'a str, config: &'a Map<String, Value>, problems: &'a mut Vec<Problem>) -> Self {
        Self { layer, config, used: BTreeSet::new(), problems }
    }

    /// Notes a problem of this layer.
    pub(crate) fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(Problem::new(self.layer, what));
    }

    /// Notes a problem of this layer, with the form that would do.
    pub(crate) fn problem_near(&mut self, what: impl Into<String>, nearest: impl Into<String>) {
        self.problems.push(Problem::new(self.layer, what).nearest(nearest));
    }

    /// The value of a key, if there is one that is not null.
    pub(crate) fn take(&mut self, key: &'a str) -> Option<&'a Value> {
        self.used.insert(key);
        self.config.get(key).filter(|value| !value.is_null())
    }

    /// Keys whose value has no meaning for SpiDNN.
    pub(crate) fn ignore(&mut self, keys: &[&'a str]) {
        self.used.extend(keys);
    }

    /// A key that must be absent or neutral: null, false, empty, or one of `also`.
    pub(crate) fn must_be_neutral(&mut self, key: &'a str, also: &[Value], nearest: &str) {
        if let Some(value) = self.take(key)
            && !is_neutral(value)
            && !also.contains(value)
        {
            self.problem_near(format!("{key}={}", show(value)), nearest);
        }
    }

    pub(crate) fn int(&mut self, key: &'a str, default: Option<i64>, least: i64) -> Option<i64> {
        let value = match (self.take(key), default) {
            (Some(value), _) => value.as_i64().or_else(|| {
                // Whole numbers that went through a float somewhere.
                value.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < 1e9).map(|value| value as i64)
            }),
            (None, Some(default)) => return Some(default),
            (None, None) => {
                self.problem(format!("has no {key}"));
                return None;
            }
        };
        match value {
            Some(value) if (least..=limits::SIZE_MAX).contains(&value) => Some(value),
            _ => {
                let found = self.config.get(key).map(show).unwrap_or_default();
                self.problem(format!("{key}={found} is not a whole number from {least} to {}", limits::SIZE_MAX));
                None
            }
        }
    }

    pub(crate) fn size(&mut self, key: &'a str, default: Option<usize>) -> Option<usize> {
        self.int(key, default.map(|size| size as i64), 1).map(|size| size as usize)
    }

    pub(crate) fn float(&mut self, key: &'a str, default: f32) -> Option<f32> {
        let Some(value) = self.take(key) else { return Some(default) };
        match number(value).map(|value| value as f32).filter(|value| value.is_finite()) {
            Some(value) => Some(value),
            None => {
                self.problem(format!("{key}={} is not a finite number", show(value)));
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, key: &'a str, default: bool) -> Option<bool> {
        let Some(value) = self.take(key) else { return Some(default) };
        if value.as_bool().is_none() {
            self.problem(format!("{key}={} is not true or false", show(value)));
        }
        value.as_bool()
    }

    /// One whole number for each spatial dimension; a single number stands for all. For rank 1 the first of the pair is
    /// `unused`.
    pub(crate) fn sizes(&mut self, key: &'a str, rank: usize, default: Option<[usize; 2]>) -> Option<[usize; 2]> {
        let Some(value) = self.take(key) else {
            if default.is_none() {
                self.problem(format!("has no {key}"));
            }
            return default;
        };
        let one = |value: &Value| {
            value.as_u64().filter(|size| (1..=limits::SIZE_MAX as u64).contains(size)).map(|size| size as usize)
        };
        let sizes = match value {
            Value::Array(values) if values.len() == rank => values.iter().map(one).collect::<Option<Vec<_>>>(),
            Value::Number(_) => one(value).map(|size| vec![size; rank]),
            _ => None,
        };
        match sizes.as_deref() {
            Some([size]) => Some([1, *size]),
            Some([rows, columns]) => Some([*rows, *columns]),
            _ => {
                self.problem(format!("{key}={} is not {rank} whole number(s) from 1", show(value)));
                None
            }
        }
    }

    pub(crate) fn text(&mut self, key: &'a str, default: &'a str) -> Option<&'a str> {
        let Some(value) = self.take(key) else { return Some(default) };
        if value.as_str().is_none() {
            self.problem(format!("{key}={} is not text", show(value)));
        }
        value.as_str()
    }

    /// Notes every key that was not asked for and is not neutral.
    pub(crate) fn finish(self) {
        for (key, value) in self.config {
            if !self.used.contains(key.as_str()) && !is_neutral(value) {
                self.problems.push(Problem::new(self.layer, format!("argument {key}={} is not known", show(value))));
            }
        }
    }
}
