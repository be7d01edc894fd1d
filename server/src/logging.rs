//! Logs: to stderr, filtered, as text or JSON. stdout belongs to the lines that tell where the server serves.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which events, by level and origin: a filter of tracing-subscriber.
    pub filter: String,
    /// How each is written.
    pub format: Format,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Says what is wrong with a filter.
pub fn check(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}

/// Starts to log. Once a process: a second call changes nothing.
pub fn init(config: &Config) {
    // The configuration was checked.
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_default();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // The only error is that logging has begun already.
    let _ = match config.format {
        Format::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().try_init(),
    };
}
