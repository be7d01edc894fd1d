//! Connections: accepting them, what each may cost, and how they end. Our own loop over hyper; tonic's routes are the
//! service behind it.
//!
//! tonic's own server stays out: it cannot be drained while a silent client is connected, its settings for age and grace
//! contradict each other, and it makes a task of each call, which takes twice the time of a call that its connection runs
//! itself (`streams`), on a thread that it never leaves (`threads`).
//!
//! # The life of a connection
//!
//! ```text
//!   accept ──▶ GREETING ──24 bytes came──▶ SERVING ──GOAWAY──▶ LEAVING ──last call answered──▶ closed
//!     │            │                          │                   │
//!     │            │ handshake timeout,       │ client left,      │ grace passed,
//!     │ too many   │ or drain                 │ no sign of life   │ no sign of life,
//!     ▼            ▼                          ▼                   ▼ or the drain's hard end
//!   closed        cut                        closed              cut
//! ```
//!
//! GOAWAY is sent when the connection is too old or when the server drains. A call that is cut was not answered: its
//! caller does not know whether it happened.
//!
//! # Bounds
//!
//! Connections: [`Config::max_connections`]; the next one is closed at once, so that its client hears of it. On each:
//! [`MAX_STREAMS`] calls at a time, header lists of [`MAX_HEADER_LIST`] bytes, the limits of h2 on resets, and
//! [`Config::transfer_timeout`] for each message, in and out. Where the
//! process runs out of descriptors, accepting pauses instead of spinning.

mod connection;
mod listener;
mod streams;
mod threads;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, net::SocketAddr};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::listener::Accepted;
pub use self::listener::{BindError, Listener};
pub use self::streams::Answer;
pub use self::threads::IoThreads;
use crate::authorize::Caller;

/// Calls at a time on one connection.
pub const MAX_STREAMS: u32 = 256;
/// Bytes of headers that one call may bring.
pub const MAX_HEADER_LIST: u32 = 16 * 1024;
/// Resets of streams that are not yet accepted, after which the connection is closed (a flood of resets).
pub const MAX_PENDING_RESETS: usize = 64;

/// How long accepting pauses after it failed for want of a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many there may be at a time; none: as many as there are descriptors for, up to 16,384.
    pub max_connections: Option<usize>,
    /// When one is told to go away, give or take a tenth; none: never.
    pub max_age: Option<Duration>,
    /// How long one that is too old may take to leave before it is cut.
    pub leave_grace: Duration,
    /// How long one may take to say that it speaks HTTP/2.
    pub handshake_timeout: Duration,
    /// After how much silence a ping is sent; none: never.
    pub keep_alive_interval: Option<Duration>,
    /// How long the answer to a ping may take.
    pub keep_alive_timeout: Duration,
    /// How long the message of a request may take to come, and that of an answer to be taken.
    pub transfer_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_age: None,
            leave_grace: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            keep_alive_interval: Some(Duration::from_secs(60)),
            keep_alive_timeout: Duration::from_secs(20),
            transfer_timeout: Duration::from_secs(30),
        }
    }
}

/// A place to serve at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP; port 0 until it is bound takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket at an absolute path.
    Unix(PathBuf),
}

/// As a client would write it: `tcp://127.0.0.1:7411`, `unix:///run/holdfast.sock`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// What answers the calls of all connections.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one call.
    fn answer(self, caller: Caller, request: Request<Incoming>) -> impl Future<Output = Response<Answer>> + Send;

    /// Whether the answer to calls of this path may take as long as it takes.
    fn is_stream(path: &str) -> bool;
}

/// All connections of a server, from its listeners to the last one's end. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Config,
    most: usize,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Cancelled: no new connections, GOAWAY on those that are there.
    leave: CancellationToken,
    /// Cancelled: whoever is left is cut.
    cut: CancellationToken,
}

impl Connections {
    /// None yet, and never more than `most`.
    pub fn new(config: Config, most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            most,
            room: Arc::new(Semaphore::new(most)),
            tasks: TaskTracker::new(),
            leave: CancellationToken::new(),
            cut: CancellationToken::new(),
            config,
        }))
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.0.most - self.0.room.available_permits()
    }

    /// Accepts connections from a listener, in the background, until [`Connections::drain`], and lets them live on `threads`.
    pub fn accept<H: Handler>(&self, listener: Listener, handler: H, threads: Arc<IoThreads>) {
        let this = self.clone();
        self.0.tasks.spawn(async move {
            let leave = this.0.leave.clone();
            leave.run_until_cancelled(this.accept_all(listener, handler, threads)).await;
        });
    }

    /// Closes the listeners, tells every connection to go away and waits until all have left. Those that have not by
    /// `deadline` are cut. Says how many those were.
    pub async fn drain(&self, deadline: tokio::time::Instant) -> usize {
        self.0.leave.cancel();
        self.0.tasks.close();
        if tokio::time::timeout_at(deadline, self.0.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.open();
        self.0.cut.cancel();
        self.0.tasks.wait().await;
        left
    }

    async fn accept_all<H: Handler>(&self, listener: Listener, handler: H, threads: Arc<IoThreads>) -> Infallible {
        let mut refusing = false;
        loop {
            let Accepted { stream, caller } = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, endpoint = %listener.endpoint(), "cannot accept connections: pausing");
                    tokio::time::sleep_until(tokio::time::Instant::now() + ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.0.room).try_acquire_owned() else {
                // Once a shortage, not once a connection.
                if !std::mem::replace(&mut refusing, true) {
                    let most = self.0.most;
                    tracing::warn!(
                        most,
                        "as many connections as allowed are open: closing new ones (--max-connections)"
                    );
                }
                continue;
            };
            refusing = false;
            let (this, handler, seat) = (self.clone(), handler.clone(), threads.seat());
            let runtime = seat.runtime().clone();
            let living = async move {
                // Fails where the process is out of watches: then it is cut, as where it is out of descriptors.
                match stream.register() {
                    Ok(stream) => connection::serve(stream, caller, handler, &this.0).await,
                    Err(error) => tracing::warn!(%error, "cannot watch a connection: closing it"),
                }
                drop((permit, seat));
            };
            self.0.tasks.spawn_on(living, &runtime);
        }
    }
}

/// Whether accept(2) failed because of the connection that it would have returned (its man page lists these).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, PermissionDenied, TimedOut,
    };
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | Interrupted
            | PermissionDenied
            | TimedOut
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
    )
}
