//! What systemd is told, where it asks for it: a unit of `Type=notify` is started with NOTIFY_SOCKET in its environment
//! (sd_notify(3)). Without this variable nothing happens here.

use std::env;
use std::io;
use std::time::Duration;

use sd_notify::NotifyState::{self, Ready, Status, Stopping};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// One message.
pub type Message = &'static [NotifyState<'static>];

/// It has been started, and is going to bind its sockets.
pub const STARTING: Message = &[Status("starting")];
/// Its listeners accept: units that come after it may start.
pub const SERVING: Message = &[Ready, Status("serving")];
/// It ends, on whose word ever.
pub const DRAINING: Message = &[Stopping, Status("draining")];

/// How long a message may wait for room in systemd's socket. The unit's TimeoutStopSec= is longer than a drain by more.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells systemd, if it is there. Whether it hears it or not, and in bounded time: that is no reason not to serve.
pub async fn tell(message: Message) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(message).await {
        tracing::warn!(
            ?socket,
            %error,
            "cannot tell systemd {}: expected a service manager at the socket that NOTIFY_SOCKET names; going on without. \
             A unit of Type=notify whose READY=1 does not come is ended: let the server reach the socket, or use Type=exec",
            message[0]
        );
    }
}

async fn send(message: Message) -> io::Result<()> {
    timeout(PATIENCE, spawn_blocking(move || sd_notify::notify(message))).await??
}
