//! A server for a step that needs one: holdfastd in release, on ports of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::job::{Job, cargo, target_dir};

const START: Duration = Duration::from_secs(30);
/// Longer than the server's own --drain-timeout-ms.
const END: Duration = Duration::from_secs(15);

/// Builds what [`Server::start`] starts.
pub fn build(job: &mut Job) -> Result<()> {
    job.run(cargo("build --release --package holdfastd"))
}

/// A server that serves. It ends with this value, at the latest.
pub struct Server {
    child: Child,
    endpoints: Vec<String>,
    /// Tells when the server has closed its stdout, which it does by ending.
    closed: mpsc::Receiver<String>,
}

impl Server {
    /// Starts a server with these options and waits, for a bounded time, until it has told where it serves, on as many
    /// endpoints as expected. None in a listing.
    pub fn start(job: &mut Job, options: &[&str], endpoints: usize) -> Result<Option<Self>> {
        let mut command = Command::new(target_dir().join("release/holdfastd"));
        command.args(options);
        let line = job.echo(&command);
        if job.is_listing() {
            return Ok(None);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        let stdout = child.stdout.take().expect("stdout was set to a pipe just above");
        let (tell, told) = mpsc::channel();
        // Reads on until the server ends, so that it never writes into a closed pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        // From here on, an early return ends the server.
        let mut server = Self { child, endpoints: Vec::new(), closed: told };
        for _ in 0..endpoints {
            let said = server.closed.recv_timeout(START).with_context(|| format!("`{line}` does not serve"))?;
            let endpoint = said.strip_prefix("serving grpc ");
            let endpoint = endpoint.with_context(|| format!("`{line}` said {said:?}, not where it serves"))?;
            server.endpoints.push(endpoint.to_owned());
        }
        Ok(Some(server))
    }

    /// Where it serves: `tcp://127.0.0.1:PORT`, `unix:///PATH`, in the order of its lines.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().map(String::as_str)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits, for a bounded time, for the end of a server that somebody has told to end; anything but a clean end is an
    /// error.
    pub fn ended(mut self) -> Result<()> {
        loop {
            match self.closed.recv_timeout(END) {
                Ok(line) => println!("{line}"),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("the server has not ended within {END:?}"),
            }
        }
        let status: ExitStatus = self.child.wait().context("cannot wait for the server")?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    /// At once: everything it has is in memory. A no-op after [`Server::ended`].
    fn drop(&mut self) {
        if let Err(why) = self.child.kill().and_then(|()| self.child.wait()) {
            println!("the server {} may still run: {why}", self.child.id());
        }
    }
}
