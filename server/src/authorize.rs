//! Who calls, and what they may do.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use engine::{Credentials, Peer};

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Somebody who can reach the port.
    Tcp(SocketAddr),
    /// A process of this machine, as the kernel names it.
    Unix(Arc<Peer>),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(peer) => write!(f, "unix:pid={},uid={}", peer.pid, peer.uid),
        }
    }
}

impl Caller {
    /// Who it is, where the kernel has said so.
    pub fn credentials(&self) -> Option<Credentials> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(peer) => Some(Credentials { pid: u32::try_from(peer.pid).unwrap_or_default(), uid: peer.uid }),
        }
    }
}

/// What a call does, as far as permission goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create or free a map.
    ManageMaps,
    /// Describe or list maps.
    ReadMaps,
    /// Read or list values.
    ReadValues,
    /// Create, replace or delete a value.
    WriteValues,
    /// Describe or list owners.
    ReadOwners,
    /// Create or destroy simulated owners.
    ManageOwners,
    /// Attach or detach programs.
    ManagePrograms,
    /// List programs and what came of them.
    ReadPrograms,
    /// Read what the server says of itself.
    ReadServer,
}

/// The caller may not do this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Denied {
    /// What is not allowed, and who could allow it. Nothing about what exists.
    pub problem: String,
}

/// Decides whether `caller` may do `action` on the map of this name (none: on all). The one place for it: every call comes
/// here before anything is looked up, so that a refusal does not tell what exists.
///
/// There are no roles yet. Who can open the socket may do everything: file permissions guard a Unix socket, and TCP
/// beyond this machine has to be asked for with `--insecure-listen`.
pub fn authorize(caller: &Caller, action: Action, map: Option<&str>) -> Result<(), Denied> {
    tracing::trace!(%caller, ?action, map, "allowed");
    Ok(())
}
