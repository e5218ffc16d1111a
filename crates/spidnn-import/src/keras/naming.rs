//! Keras' names for the groups of a weights file: the class in snake case, counted.

use std::collections::HashMap;

/// Keras' `to_snake_case`: `MaxPooling2D` -> `max_pooling2d`, `LeakyReLU` -> `leaky_re_lu`.
pub(crate) fn snake_case(class: &str) -> String {
    let chars: Vec<char> = class.chars().filter(|char| char.is_alphanumeric() || *char == '_').collect();
    // First rule: an underscore before a capital that is followed by small letters.
    let mut first = Vec::with_capacity(chars.len() + 4);
    let mut index = 0;
    while index < chars.len() {
        let starts_word = index > 0
            && chars[index].is_ascii_uppercase()
            && chars.get(index + 1).is_some_and(char::is_ascii_lowercase);
        if starts_word {
            first.push('_');
        }
        first.push(chars[index]);
        index += 1;
    }
    // Second rule: an underscore between a small letter and a capital.
    let mut name = String::with_capacity(first.len() + 4);
    for (index, char) in first.iter().enumerate() {
        if index > 0 && char.is_ascii_uppercase() && first[index - 1].is_ascii_lowercase() {
            name.push('_');
        }
        name.extend(char.to_lowercase());
    }
    name
}

/// Counts names: `dense`, `dense_1`, `dense_2`.
#[derive(Debug, Default)]
pub(crate) struct Counter(HashMap<String, usize>);

impl Counter {
    /// The next name for a class.
    pub(crate) fn name(&mut self, class: &str) -> String {
        let stem = snake_case(class);
        match self.0.entry(stem.clone()).and_modify(|count| *count += 1).or_insert(0) {
            0 => stem,
            count => format!("{stem}_{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_keras_names() {
        for (class, name) in [
            ("Conv2D", "conv2d"),
            ("DepthwiseConv2D", "depthwise_conv2d"),
            ("GlobalAveragePooling2D", "global_average_pooling2d"),
            ("ReLU", "re_lu"),
            ("LeakyReLU", "leaky_re_lu"),
            ("ELU", "elu"),
            ("InputLayer", "input_layer"),
            ("BatchNormalization", "batch_normalization"),
            ("RMSprop", "rm_sprop"),
        ] {
            assert_eq!(snake_case(class), name);
        }
        let mut counter = Counter::default();
        assert_eq!(counter.name("Dense"), "dense");
        assert_eq!(counter.name("Dense"), "dense_1");
        assert_eq!(counter.name("Conv2D"), "conv2d");
        assert_eq!(counter.name("Dense"), "dense_2");
    }
}
