//! Redis and etcd beside us, and loaders that are not ours: redis-benchmark and h2load.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use tempfile::TempDir;

use super::load::{Outcome, PATIENCE, Shape, THREADS, WARM, all};
use super::server::{Cpu, Process, free_address};
use super::work::{Item, Method, etcd};
use crate::histogram;

/// Commands that fill Redis, at a time.
const FILLED: usize = 1_000;

/// Whether such a program is installed.
pub fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// In memory, if there is a file system for it: we write nothing to a disk, and so need nobody wait for one.
pub fn folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.context("cannot make a folder")
}

/// Without persistence, with these values under the keys that redis-benchmark uses.
pub fn redis(values: &[Bytes]) -> Result<Process> {
    let address = free_address()?;
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
    let server = Process::start_at(command, address)?;
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    for (part, values) in values.chunks(FILLED).enumerate() {
        let mut commands = Vec::new();
        for (number, value) in values.iter().enumerate() {
            let key = format!("key:{:012}", part * FILLED + number);
            write!(commands, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len())?;
            commands.extend_from_slice(value);
            commands.extend_from_slice(b"\r\n");
        }
        connection.write_all(&commands)?;
        let mut answers = vec![0; "+OK\r\n".len() * values.len()];
        connection.read_exact(&mut answers)?;
        ensure!(answers.chunks(5).all(|answer| answer == b"+OK\r\n"), "Redis refuses a SET");
    }
    Ok(server)
}

pub fn key(number: usize) -> String {
    format!("key:{number:012}")
}

/// One member, whose log is in memory if it can be.
pub fn etcd(folder: &Path, values: &[Bytes]) -> Result<Process> {
    let (clients, peers) = (free_address()?, free_address()?);
    let [for_clients, for_peers] = [clients, peers].map(|address| format!("http://{address}"));
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(folder).args(["--name", "bench", "--log-level", "error"]);
    command.args(["--listen-client-urls", &for_clients, "--advertise-client-urls", &for_clients]);
    command.args(["--listen-peer-urls", &for_peers, "--initial-advertise-peer-urls", &for_peers]);
    command.args(["--initial-cluster", &format!("bench={for_peers}")]);
    let server = Process::start_at(command, clients)?;
    // It takes connections before it has elected itself; a call waits for that.
    let puts = values.iter().enumerate();
    let puts = puts.map(|(number, value)| etcd::PutRequest { key: key(number).into(), value: value.clone() });
    all::<_, etcd::PutResponse>(clients, Method::EtcdPut.path(), puts)?;
    Ok(server)
}

/// A command of redis-benchmark, at Redis.
#[derive(Clone, Copy)]
pub struct RedisTest {
    pub name: &'static str,
    /// Commands in one write.
    pub pipeline: usize,
}

impl RedisTest {
    /// As many commands under way as we have calls: connections with one each, or with a pipeline each.
    pub fn run(self, server: &Process, shape: Shape, keys: usize, value: usize, counted: Duration) -> Result<Outcome> {
        let connections = match self.pipeline {
            1 => shape.connections * shape.streams,
            _ => shape.connections,
        };
        counted_by(server, counted, connections * self.pipeline, |calls| {
            let mut command = Command::new("redis-benchmark");
            command.args(["--csv", "-t", self.name, "-p", &server.address().port().to_string()]);
            let numbers = [("-c", connections), ("-P", self.pipeline), ("-n", calls), ("-r", keys), ("-d", value)];
            for (option, number) in numbers {
                command.arg(option).arg(number.to_string());
            }
            let text = output(command)?;
            redis_line(&text).with_context(|| format!("redis-benchmark said {text:?}"))
        })
    }
}

/// Calls a second, and p50, p99 and p99.9 in microseconds, of what ran.
type Told = (f64, [Option<f64>; 3]);

/// `"GET","45248.87","0.117","0.024","0.103","0.183","0.255","7.711"`: rate; average, least, p50, p95, p99, most in ms.
fn redis_line(text: &str) -> Option<Told> {
    let line = text.lines().last()?;
    let fields: Vec<_> = line.trim().trim_matches('"').split("\",\"").collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((number(1)?, [Some(number(4)? * 1e3), Some(number(6)? * 1e3), None]))
}

/// h2load with the request of a file. It takes a refusal for a success: whoever uses it has checked the request before.
pub fn h2load(server: &Process, path: &str, body: &Path, shape: Shape, counted: Duration) -> Result<Outcome> {
    counted_by(server, counted, shape.connections * shape.streams, |calls| {
        let mut command = Command::new("h2load");
        let threads = THREADS.min(shape.connections);
        let numbers = [("-n", calls), ("-c", shape.connections), ("-m", shape.streams), ("-t", threads)];
        for (option, number) in numbers {
            command.arg(option).arg(number.to_string());
        }
        command.arg("-d").arg(body).args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
        command.arg(format!("http://{}{path}", server.address()));
        let text = output(command)?;
        let rate = h2load_rate(&text, calls).with_context(|| format!("h2load said {text}"))?;
        Ok((rate, [None; 3]))
    })
}

/// `finished in 2.00s, 61234.50 req/s, 5.2MB/s`, if all have ended with HTTP status 200.
fn h2load_rate(text: &str, calls: usize) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("finished in "))?;
    let succeeded = text.lines().find(|line| line.starts_with("status codes:"))?.contains(&format!(" {calls} 2xx"));
    line.split(", ").nth(1)?.strip_suffix(" req/s")?.parse().ok().filter(|_| succeeded)
}

/// Loaders that are told a number of calls, not a time: a short run tells how many take about so long.
fn counted_by(
    server: &Process,
    counted: Duration,
    at_once: usize,
    mut run: impl FnMut(usize) -> Result<Told>,
) -> Result<Outcome> {
    // In whole pipelines: with a part of one, redis-benchmark may end with "all clients disconnected".
    let calls_in = |rate: f64, time: Duration| ((rate * time.as_secs_f64()) as usize).max(1).next_multiple_of(at_once);
    let (guess, _) = run(5_000usize.next_multiple_of(at_once))?;
    let (guess, _) = run(calls_in(guess, WARM))?;
    let calls = calls_in(guess, counted);
    let (children, before, began) = (Cpu::of_children()?, server.cpu()?, Instant::now());
    let (rate, quantiles) = run(calls)?;
    ensure!(began.elapsed() < PATIENCE + counted, "another loader took far longer than expected");
    Ok(Outcome {
        calls: calls as u64,
        seconds: calls as f64 / rate,
        latencies: histogram(),
        quantiles,
        failures: 0,
        failure: None,
        server: server.cpu()?.since(before),
        loader: Cpu::of_children()?.since(children),
    })
}

fn output(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes a request where h2load reads it.
pub fn write_body(folder: &Path, name: &str, item: &Item) -> Result<std::path::PathBuf> {
    let file = folder.join(name);
    fs::write(&file, &item.framed).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_loaders_say_is_read() {
        let text =
            "\"test\",\"rps\"\n\"GET\",\"45248.87\",\"0.117\",\"0.024\",\"0.103\",\"0.183\",\"0.255\",\"7.711\"\n";
        assert_eq!(redis_line(text), Some((45248.87, [Some(103.0), Some(255.0), None])));
        let text = "finished in 2.00s, 61234.50 req/s, 5.2MB/s\nstatus codes: 200 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        assert_eq!(h2load_rate(text, 200), Some(61234.5));
        assert_eq!(h2load_rate(text, 201), None, "a call that did not end is a failure");
    }
}
