//! Small help with names that people type.

/// The candidate nearest to `name` by edit distance, if any is near enough to be a typo.
pub(crate) fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let limit = (name.len() / 3).max(1) + 1;
    candidates
        .iter()
        .map(|c| (distance(&name, &c.to_ascii_lowercase()), *c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Levenshtein distance of two short strings.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// `SparseCategoricalCrossentropy` and `sparse_categorical_crossentropy` are the same name.
pub(crate) fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && before_lower {
            out.push('_');
        }
        before_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Splits `name:a=1,b=f(x=1,y=2)` into the name and its pairs; commas inside parentheses do not split.
pub(crate) fn name_and_pairs(text: &str) -> (&str, Vec<(&str, &str)>) {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    (name.trim(), pairs(rest))
}

/// Splits `a=1,b=f(x=1,y=2)` into pairs.
pub(crate) fn pairs(text: &str) -> Vec<(&str, &str)> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
        .into_iter()
        .filter(|p| !p.trim().is_empty())
        .map(|p| p.split_once('=').map_or((p.trim(), ""), |(k, v)| (k.trim(), v.trim())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_find_their_word() {
        assert_eq!(nearest("acuracy", &["auc", "accuracy"]), Some("accuracy"));
        assert_eq!(nearest("Adma", &["sgd", "adam"]), Some("adam"));
        assert_eq!(nearest("zzzzzz", &["sgd", "adam"]), None);
        assert_eq!(snake_case("MeanSquaredError"), "mean_squared_error");
        assert_eq!(snake_case("mean_squared_error"), "mean_squared_error");
        assert_eq!(snake_case("MSE"), "mse");
    }

    #[test]
    fn commas_in_parentheses_stay() {
        let (name, pairs) = name_and_pairs("adam:lr=CosineDecay(initial_learning_rate=1,decay_steps=2), beta_1 = 0.8");
        assert_eq!(name, "adam");
        assert_eq!(pairs, [("lr", "CosineDecay(initial_learning_rate=1,decay_steps=2)"), ("beta_1", "0.8")]);
        assert_eq!(name_and_pairs("sgd"), ("sgd", vec![]));
    }
}
