//! What the server is started with: parsed once, from options that were written by a person, all or nothing.
//!
//! [`CommandLine`] → [`Options`] (flags, environment, file) → [`Config`] (checked values for each part) → `App`.
//! Tests begin with [`Config::default`] or with [`Options`]; neither looks at the environment.

mod cpu_list;
mod options;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::cpu_list::CpuList;
pub use self::options::{CommandLine, Guard, Options};
use crate::transport::Endpoint;
use crate::{logging, transport};

/// What a request needs beside its value: names, a path, framing.
const MESSAGE_OVERHEAD: usize = 8 * 1024;
/// Bounds of what may be configured, so that no sum overflows and no typo asks for years.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const LARGEST_MESSAGE: usize = 1 << 30;

/// Everything that the server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it serves.
    pub endpoints: Vec<Endpoint>,
    /// How it treats connections.
    pub transport: transport::Config,
    /// The largest request message, in bytes.
    pub max_message_size: usize,
    /// How it ends.
    pub drain: Drain,
    /// The pinned workers.
    pub workers: Workers,
    /// The domain. Its `executor` is overwritten from `workers`, and its reserved descriptors from `transport`, when the
    /// server is built.
    pub engine: engine::Config,
    /// Threads that drive connections, and do what need not wait.
    pub io_threads: usize,
    /// What it logs.
    pub log: logging::Config,
}

/// How the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long it tells everybody that it is going before it closes anything.
    pub notice: Duration,
    /// How long after the signal it cuts the connections that are left.
    pub timeout: Duration,
}

/// The threads that run the calls that take locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// The processors to pin to; none: what suits the machine.
    pub cpus: Option<Vec<usize>>,
    /// Workers on each.
    pub per_cpu: usize,
    /// How many calls wait for one.
    pub mailbox: usize,
}

impl Default for Config {
    fn default() -> Self {
        let engine = engine::Config::default();
        Self {
            endpoints: vec![Endpoint::Tcp(default_address())],
            transport: transport::Config::default(),
            max_message_size: 4 << 20,
            drain: Drain { notice: Duration::from_millis(500), timeout: Duration::from_secs(10) },
            workers: Workers { cpus: None, per_cpu: 1, mailbox: engine.executor.mailbox_capacity },
            engine,
            io_threads: 2,
            log: logging::Config { filter: "info".to_owned(), format: logging::Format::Text },
        }
    }
}

fn default_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, holdfast_proto::DEFAULT_PORT).into()
}

/// Why the options make no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file says something else than options.
    #[error("in the configuration file {}: {source}", path.display())]
    Unparsable {
        /// Its path.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// An option has a value that it cannot have.
    #[error("--{option}: {problem}")]
    Wrong {
        /// The flag, without dashes; the file's key is the same.
        option: &'static str,
        /// What was wrong, what was expected, what to do.
        problem: String,
    },
}

fn wrong(option: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Wrong { option, problem: problem.into() }
}

impl CommandLine {
    /// The configuration that the command line, the environment and the file make together.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        match &self.config {
            Some(path) => self.options.or(read(path)?).into_config(),
            None => self.options.into_config(),
        }
    }
}

fn read(path: &Path) -> Result<Options, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::Unparsable { path: path.to_owned(), source: Box::new(source) })
}

impl Options {
    /// Checks everything and fills in the defaults.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let endpoints = self.endpoints()?;
        let mut config = Config { endpoints, ..Config::default() };
        self.set_workers(&mut config)?;
        self.set_limits(&mut config)?;
        self.set_transport(&mut config.transport)?;
        self.set_drain(&mut config.drain)?;
        if let Some(filter) = self.log {
            logging::check(&filter).map_err(|error| wrong("log", format!("{filter:?} is no filter: {error}")))?;
            config.log.filter = filter;
        }
        config.log.format = self.log_format.unwrap_or(config.log.format);
        Ok(config)
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, ConfigError> {
        let listen = match (&self.listen, &self.unix) {
            (Some(listen), _) => listen.clone(),
            (None, Some(_)) => Vec::new(),
            (None, None) => vec![default_address()],
        };
        if !self.insecure_listen.unwrap_or(false)
            && let Some(address) = listen.iter().find(|address| !address.ip().to_canonical().is_loopback())
        {
            let problem = format!(
                "{address} can be reached from other machines, where connections are neither encrypted nor asked who \
                 they are: listen on 127.0.0.1 or [::1], or add --insecure-listen if the network is trusted"
            );
            return Err(wrong("listen", problem));
        }
        let mut endpoints: Vec<_> = listen.into_iter().map(Endpoint::Tcp).collect();
        if let Some(path) = &self.unix {
            let path = std::path::absolute(path).map_err(|error| wrong("unix", format!("{path:?}: {error}")))?;
            endpoints.push(Endpoint::Unix(path));
        }
        if endpoints.is_empty() {
            return Err(wrong("listen", "no address is given: give one, or --unix, or leave it out for the default"));
        }
        Ok(endpoints)
    }

    fn set_workers(&self, config: &mut Config) -> Result<(), ConfigError> {
        let workers = &mut config.workers;
        if let Some(CpuList(cpus)) = &self.cpus {
            workers.cpus = Some(cpus.clone());
        }
        set(&mut workers.per_cpu, self.workers_per_cpu, "workers-per-cpu", 1, 64)?;
        set(&mut workers.mailbox, self.mailbox, "mailbox", 1, 1 << 20)?;
        set(&mut config.io_threads, self.io_threads, "io-threads", 1, 256)?;
        let inline = &mut config.engine.inline_mutations;
        *inline = self.inline_mutations.unwrap_or(*inline);
        config.engine.guard = self.guard.map_or(config.engine.guard, Guard::into_engine);
        set_ms(&mut config.engine.lock_timeout, self.lock_timeout_ms, "lock-timeout-ms", 1)
    }

    fn set_limits(&self, config: &mut Config) -> Result<(), ConfigError> {
        let engine = &mut config.engine;
        engine.owners.simulated = self.allow_simulated_owners.unwrap_or(engine.owners.simulated);
        engine.lab_steps = self.allow_lab_steps.unwrap_or(engine.lab_steps);
        set(&mut engine.max_maps, self.max_maps, "max-maps", 1, 1 << 20)?;
        set(&mut engine.owners.max_owners, self.max_owners, "max-owners", 1, 1 << 28)?;
        engine.max_owner_bytes = bytes_or_no_limit(self.max_owner_bytes, engine.max_owner_bytes);
        engine.max_bytes = bytes_or_no_limit(self.max_bytes, engine.max_bytes);
        let least = MESSAGE_OVERHEAD;
        set(&mut config.max_message_size, self.max_message_size, "max-message-size", least, LARGEST_MESSAGE)?;
        let room = config.max_message_size - MESSAGE_OVERHEAD;
        let mut value_size = engine.max_value_size as usize;
        set(&mut value_size, self.max_value_size.map(|size| size as usize), "max-value-size", 1, LARGEST_MESSAGE)?;
        if value_size > room {
            let option = if self.max_value_size.is_some() { "max-value-size" } else { "max-message-size" };
            let problem = format!(
                "a value of {value_size} bytes does not fit a message of {} bytes, of which it may take {room}",
                config.max_message_size
            );
            return Err(wrong(option, problem));
        }
        engine.max_value_size = value_size as u32;
        Ok(())
    }

    fn set_transport(&self, transport: &mut transport::Config) -> Result<(), ConfigError> {
        let most = 1 << 20;
        let mut connections = most;
        set(&mut connections, self.max_connections, "max-connections", 1, most)?;
        transport.max_connections = self.max_connections.map(|_| connections);
        transport.max_age = seconds_or_never(self.max_connection_age_s, transport.max_age, "max-connection-age-s")?;
        transport.keep_alive_interval =
            seconds_or_never(self.keep_alive_interval_s, transport.keep_alive_interval, "keep-alive-interval-s")?;
        if let Some(timeout) = seconds_or_never(self.transfer_timeout_s, None, "transfer-timeout-s")? {
            transport.transfer_timeout = timeout;
        } else if self.transfer_timeout_s.is_some() {
            return Err(wrong("transfer-timeout-s", "0 lets no message through: give a second at least"));
        }
        if let Some(timeout) = seconds_or_never(self.keep_alive_timeout_s, None, "keep-alive-timeout-s")? {
            transport.keep_alive_timeout = timeout;
        } else if self.keep_alive_timeout_s.is_some() {
            return Err(wrong("keep-alive-timeout-s", "0 cuts everybody: use --keep-alive-interval-s 0 to ask nobody"));
        }
        Ok(())
    }

    fn set_drain(&self, drain: &mut Drain) -> Result<(), ConfigError> {
        set_ms(&mut drain.notice, self.drain_notice_ms, "drain-notice-ms", 0)?;
        set_ms(&mut drain.timeout, self.drain_timeout_ms, "drain-timeout-ms", 0)?;
        if drain.notice > drain.timeout {
            let problem = format!(
                "{} ms is less than --drain-notice-ms ({} ms), which is a part of it",
                drain.timeout.as_millis(),
                drain.notice.as_millis()
            );
            return Err(wrong("drain-timeout-ms", problem));
        }
        Ok(())
    }
}

fn set(
    value: &mut usize,
    given: Option<usize>,
    option: &'static str,
    least: usize,
    most: usize,
) -> Result<(), ConfigError> {
    if let Some(given) = given {
        if !(least..=most).contains(&given) {
            return Err(wrong(option, format!("{given} is not between {least} and {most}")));
        }
        *value = given;
    }
    Ok(())
}

fn set_ms(value: &mut Duration, given: Option<u64>, option: &'static str, least: u64) -> Result<(), ConfigError> {
    if let Some(given) = given {
        let most = LONGEST.as_millis() as u64;
        if !(least..=most).contains(&given) {
            return Err(wrong(option, format!("{given} ms is not between {least} and {most}")));
        }
        *value = Duration::from_millis(given);
    }
    Ok(())
}

/// 0 means no limit.
fn bytes_or_no_limit(given: Option<u64>, default: Option<u64>) -> Option<u64> {
    match given {
        None => default,
        Some(0) => None,
        Some(given) => Some(given),
    }
}

/// 0 means never.
fn seconds_or_never(
    given: Option<u64>,
    default: Option<Duration>,
    option: &'static str,
) -> Result<Option<Duration>, ConfigError> {
    match given {
        None => Ok(default),
        Some(0) => Ok(None),
        Some(given) if given <= LONGEST.as_secs() => Ok(Some(Duration::from_secs(given))),
        Some(given) => Err(wrong(option, format!("{given} s is more than {} s, a day", LONGEST.as_secs()))),
    }
}

#[cfg(test)]
mod tests;
