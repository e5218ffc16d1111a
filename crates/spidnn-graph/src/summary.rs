//! The table that Keras' `model.summary()` prints.

use crate::error::keras_shape;
use crate::{Graph, LayerId, LayerKind};

impl Graph {
    /// A table of the layers as Keras prints it: name and class, output shape, parameters, and, for functional models, what each
    /// layer is connected to.
    pub fn summary(&self) -> String {
        let mut rows = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            // Keras does not list the input of a Sequential model.
            if self.sequential && matches!(layer.kind, LayerKind::Input { .. }) {
                continue;
            }
            let calls = self.calls(LayerId(index));
            let shapes: Vec<String> = calls.iter().map(|node| keras_shape(&self.node(*node).shape)).collect();
            let mut sources: Vec<String> = calls
                .iter()
                .flat_map(|node| self.node(*node).inputs.iter().map(|input| self.layer_of(*input).name.clone()))
                .collect();
            sources.dedup();
            let mut row = vec![
                format!("{} ({})", layer.name, layer.kind.class_name()),
                shapes.join(", "),
                thousands(self.layer_parameter_count(LayerId(index))),
            ];
            if !self.sequential {
                row.push(if sources.is_empty() { "-".to_owned() } else { sources.join(", ") });
            }
            rows.push(row);
        }
        let mut heading = vec!["Layer (type)".to_owned(), "Output Shape".to_owned(), "Param #".to_owned()];
        if !self.sequential {
            heading.push("Connected to".to_owned());
        }
        let widths: Vec<usize> = (0..heading.len())
            .map(|column| rows.iter().chain([&heading]).map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let line = |row: &[String]| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(
                    |(column, (cell, width))| {
                        if column == 2 { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                    },
                )
                .collect();
            format!("│ {} │\n", cells.join(" │ "))
        };
        let rule = |left: &str, middle: &str, right: &str| {
            let cells: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
            format!("{left}{}{right}\n", cells.join(middle))
        };
        let mut text = format!("Model: \"{}\"\n{}{}", self.name, rule("┌", "┬", "┐"), line(&heading));
        text += &rule("├", "┼", "┤");
        for row in &rows {
            text += &line(row);
        }
        text += &rule("└", "┴", "┘");
        let total = self.parameter_count();
        let trainable = self.trainable_parameter_count();
        for (label, count) in [("Total", total), ("Trainable", trainable), ("Non-trainable", total - trainable)] {
            text += &format!(" {label} params: {} ({})\n", thousands(count), bytes(count * 4));
        }
        text
    }
}

/// `61706` as `61,706`.
fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as Keras prints them.
fn bytes(count: usize) -> String {
    let mut size = count as f64;
    for unit in ["B", "KB", "MB"] {
        if size < 1024.0 {
            return format!("{size:.2} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.2} GB")
}
