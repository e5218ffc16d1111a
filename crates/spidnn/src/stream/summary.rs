//! What a stream reached.

use super::Output;

/// Latencies and throughput of a stream, in machine time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Summary {
    /// Outputs.
    pub samples: usize,
    /// Half of the latencies (push to answer) are at most this, in seconds.
    pub latency_median_s: f64,
    /// 99 of 100 latencies are at most this, in seconds.
    pub latency_p99_s: f64,
    /// The longest latency, in seconds.
    pub latency_max_s: f64,
    /// From the first push to the last answer, in seconds.
    pub time_s: f64,
    /// Samples a second over that time.
    pub throughput_hz: f64,
}

impl Summary {
    /// Of some outputs; all zero for none.
    pub fn of(outputs: &[Output]) -> Summary {
        let mut latencies: Vec<u64> =
            outputs.iter().map(|output| output.answered_ns.saturating_sub(output.pushed_ns)).collect();
        latencies.sort_unstable();
        // The nearest rank: the smallest that so many of a hundred do not exceed.
        let rank = |percent: usize| {
            let at = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(at).map_or(0.0, |&ns| ns as f64 * 1e-9)
        };
        let first_ns = outputs.iter().map(|output| output.pushed_ns).min().unwrap_or(0);
        let last_ns = outputs.iter().map(|output| output.answered_ns).max().unwrap_or(0);
        let time_s = (last_ns - first_ns) as f64 * 1e-9;
        Summary {
            samples: outputs.len(),
            latency_median_s: rank(50),
            latency_p99_s: rank(99),
            latency_max_s: rank(100),
            time_s,
            throughput_hz: if time_s > 0.0 { outputs.len() as f64 / time_s } else { 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Output, Summary};

    #[test]
    fn ranks_are_those_of_the_sorted_latencies() {
        let output = |number: u64| Output {
            sequence: number,
            values: Vec::new(),
            pushed_ns: number * 1000,
            answered_ns: number * 1000 + (number * 37 % 200 + 1) * 1_000_000,
        };
        // Latencies of 1 to 200 ms in some order.
        let outputs: Vec<Output> = (0..200).map(output).collect();
        let summary = Summary::of(&outputs);
        assert_eq!((summary.latency_median_s, summary.latency_p99_s, summary.latency_max_s), (0.1, 0.198, 0.2));
        assert!((summary.time_s - 0.2).abs() < 2e-4 && (summary.throughput_hz - 1000.0).abs() < 2.0);
        assert_eq!(Summary::of(&[]), Summary::default());
    }
}
