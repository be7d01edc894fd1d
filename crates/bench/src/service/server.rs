//! Servers as processes of their own, and what they cost.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

const START: Duration = Duration::from_secs(30);
/// How a server says where it serves.
const SERVING: &str = "serving grpc tcp://";

/// A server that serves. Ends with this value.
pub struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Starts one, and waits until it has told where it serves.
    pub fn start(mut command: Command) -> Result<Process> {
        let line = format!("{command:?}");
        // A pipe that nobody writes to: bench-peer ends when it is closed.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let child = child.with_context(|| format!("cannot start {line}"))?;
        // From here on, an early return ends it.
        let mut server = Process { child, address: ([127, 0, 0, 1], 0).into() };
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

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cpu(&self) -> Result<Cpu> {
        Cpu::of(&self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(why) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            println!("the server {} may still run: {why}", self.child.id());
        }
    }
}

/// Time of processors that a process has had, in user code and in the kernel.
#[derive(Clone, Copy)]
pub struct Cpu(Duration);

impl Cpu {
    pub fn of_this() -> Result<Cpu> {
        Cpu::of("self")
    }

    fn of(pid: &str) -> Result<Cpu> {
        let file = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let ticks = ticks(&text).with_context(|| format!("{file} is not as expected: {text}"))?;
        Ok(Cpu(Duration::from_nanos(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second()))))
    }

    pub fn since(self, before: Cpu) -> Duration {
        self.0.saturating_sub(before.0)
    }
}

/// utime and stime, fields 14 and 15: behind the name, which may have spaces and parentheses in it.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}
