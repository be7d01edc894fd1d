//! Servers as processes of their own, and what they cost.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

const START: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(20);
/// How a server of ours says where it serves.
const SERVING: &str = "serving grpc tcp://";

/// A server that serves. Ends with this value.
pub struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Starts one of ours, and waits until it has told where it serves.
    pub fn start(mut command: Command) -> Result<Process> {
        let line = format!("{command:?}");
        // A pipe that nobody writes to: bench-peer ends when it is closed.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.with_context(|| format!("cannot start {line}"))?;
        // From here on, an early return ends it.
        let mut server = Process { child, address: (Ipv4Addr::LOCALHOST, 0).into() };
        let stdout = server.child.stdout.take().expect("stdout was set to a pipe just above");
        let (tell, told) = mpsc::channel();
        // Reads on until the server ends, so that it never writes into a closed pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let said = told.recv_timeout(START).with_context(|| format!("{line} does not serve"))?;
        let address = said.strip_prefix(SERVING).and_then(|address| address.parse().ok());
        server.address = address.with_context(|| format!("{line} said {said:?}, not where it serves"))?;
        Ok(server)
    }

    /// Starts another one, which was told to serve there, and waits until it does. Nobody sees what it says.
    pub fn start_at(mut command: Command, address: SocketAddr) -> Result<Process> {
        let line = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = Process { child: child.with_context(|| format!("cannot start {line}"))?, address };
        let late = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait()?;
            ensure!(ended.is_none() && Instant::now() < late, "{line} does not serve");
            crate::pause(RETRY);
        }
        Ok(server)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cpu(&self) -> Result<Cpu> {
        Ok(Cpu(ticks(&self.child.id().to_string(), UTIME)?))
    }

    /// Bytes of memory that it has now.
    pub fn resident(&self) -> Result<u64> {
        let file = format!("/proc/{}/statm", self.child.id());
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        Ok(pages.with_context(|| format!("{file} is not as expected"))? * rustix::param::page_size() as u64)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(why) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            println!("the server {} may still run: {why}", self.child.id());
        }
    }
}

/// A port that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Time of processors, in user code and in the kernel.
#[derive(Clone, Copy)]
pub struct Cpu(Duration);

/// Fields of /proc/PID/stat, counted from behind the name: utime and stime; the same of children that have ended.
const UTIME: usize = 11;
const CUTIME: usize = 13;

impl Cpu {
    /// Of this process.
    pub fn of_this() -> Result<Cpu> {
        Ok(Cpu(ticks("self", UTIME)?))
    }

    /// Of the processes that this one has started and seen the end of.
    pub fn of_children() -> Result<Cpu> {
        Ok(Cpu(ticks("self", CUTIME)?))
    }

    pub fn since(self, before: Cpu) -> Duration {
        self.0.saturating_sub(before.0)
    }
}

fn ticks(pid: &str, first: usize) -> Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let ticks = two_fields(&text, first).with_context(|| format!("{file} is not as expected: {text}"))?;
    Ok(Duration::from_nanos(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second())))
}

/// The sum of a field and the one behind it. The name before them may have spaces and parentheses in it.
fn two_fields(stat: &str, first: usize) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(first);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}
