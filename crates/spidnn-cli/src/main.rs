//! The `spidnn` command: arguments in, a session in the middle, text or one JSON object out.
//!
//! Exit status: 0 done, 1 the run failed, 2 bad arguments or bad input.
#![forbid(unsafe_code)]

mod app;
mod args;
mod bench;
mod board;
mod commands;
mod debugging;
mod doctor;
mod machine;
mod output;
mod profile;
mod progress;
mod stream;
mod trace;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("SPIDNN_LOG").unwrap_or_else(|_| "warn".into()))
        .init();
    match commands::run(&cli) {
        Ok(answer) => match answer.print(cli.common.json) {
            Ok(()) => ExitCode::from(u8::from(answer.failed)),
            // Whoever read our output has gone: nothing is left to be said to them.
            Err(_) => ExitCode::from(1),
        },
        Err(error) => {
            if cli.common.json {
                let kind = if error.is_input() { "input" } else { "run" };
                println!("{}", serde_json::json!({"error": {"kind": kind, "message": error.to_string()}}));
            }
            eprintln!("{:?}", miette::miette!("{error}"));
            ExitCode::from(if error.is_input() { 2 } else { 1 })
        }
    }
}
