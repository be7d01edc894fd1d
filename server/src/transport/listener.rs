//! Sockets that accept: TCP and Unix.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::Endpoint;
use super::connection::Unwatched;
use crate::authorize::Caller;

/// How many connections the kernel keeps until we accept them.
const BACKLOG: u32 = 4096;
/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// A socket that accepts connections.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// Its file is removed with it.
    Unix(UnixListener, #[expect(dead_code, reason = "held for its drop")] SocketFile),
}

/// A connection, and who is at its other end.
pub(super) struct Accepted {
    pub(super) stream: Unwatched,
    pub(super) caller: Caller,
}

/// Why an endpoint cannot be served at.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else serves there.
    #[error("{endpoint} is taken by another process: stop that one, or choose another place with {flag}")]
    Taken {
        /// Where.
        endpoint: Endpoint,
        /// The flag that says where.
        flag: &'static str,
    },
    /// There is something else at the path.
    #[error("{}: there is a file that is not a socket; it stays: choose another path with --unix", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot listen on {endpoint}: {source}")]
    System {
        /// Where.
        endpoint: Endpoint,
        /// What it said.
        source: io::Error,
    },
}

impl Listener {
    /// Binds an endpoint. Within a tokio runtime.
    pub fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        match endpoint {
            Endpoint::Tcp(address) => bind_tcp(*address),
            Endpoint::Unix(path) => bind_unix(path),
        }
    }

    /// Where it is, with the port that it really has.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are small and somebody waits for each: 40 ms of Nagle's algorithm are too much.
                stream.set_nodelay(true)?;
                Ok(Accepted { stream: Unwatched::Tcp(stream.into_std()?), caller: Caller::Tcp(peer) })
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let peer = engine::owners::peer_of(&stream)?;
                Ok(Accepted { stream: Unwatched::Unix(stream.into_std()?), caller: Caller::Unix(Arc::new(peer)) })
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> Result<Listener, BindError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait until the last connections of the run before have left TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        Ok((listener.local_addr()?, listener))
    };
    match bind() {
        Ok((address, listener)) => Ok(Listener { endpoint: Endpoint::Tcp(address), socket: Socket::Tcp(listener) }),
        Err(source) => Err(failed(Endpoint::Tcp(address), "--listen", source)),
    }
}

fn failed(endpoint: Endpoint, flag: &'static str, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { endpoint, flag },
        _ => BindError::System { endpoint, source },
    }
}

/// Binds under another name and renames, so that the path never leads to a socket with another mode than the right one,
/// and so that a stale file is replaced in one step.
fn bind_unix(path: &Path) -> Result<Listener, BindError> {
    let endpoint = Endpoint::Unix(path.to_owned());
    make_way(path)?;
    let bind = || {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let fresh = path.with_file_name(name);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        let placed = fs::set_permissions(&fresh, fs::Permissions::from_mode(SOCKET_MODE))
            .and_then(|()| SocketFile::identify(&fresh))
            .and_then(|identity| fs::rename(&fresh, path).map(|()| identity));
        match placed {
            Ok(identity) => Ok((listener, SocketFile { path: path.to_owned(), identity })),
            Err(error) => {
                // Best effort: the error that counts is the one above.
                let _ = fs::remove_file(&fresh);
                Err(error)
            }
        }
    };
    match bind() {
        Ok((listener, file)) => Ok(Listener { endpoint, socket: Socket::Unix(listener, file) }),
        Err(source) => Err(failed(endpoint, "--unix", source)),
    }
}

/// Only a socket that nobody answers at may be replaced.
fn make_way(path: &Path) -> Result<(), BindError> {
    let endpoint = || Endpoint::Unix(path.to_owned());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BindError::System { endpoint: endpoint(), source }),
        Ok(found) if !found.file_type().is_socket() => Err(BindError::NotASocket { path: path.to_owned() }),
        Ok(_) => match StdUnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) if source.kind() != io::ErrorKind::WouldBlock => {
                Err(BindError::System { endpoint: endpoint(), source })
            }
            // It answers, or its backlog is full.
            _ => Err(BindError::Taken { endpoint: endpoint(), flag: "--unix" }),
        },
    }
}

/// The file of a Unix socket. Dropping it removes the file, unless somebody else's is there by now.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Device and inode.
    fn identify(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::identify(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the socket file");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::{Accepted, Caller, Endpoint, Listener, Unwatched};

    /// On the loopback interface it makes no difference that a test could measure.
    #[tokio::test]
    async fn answers_are_not_held_back() {
        let listener = Listener::bind(&Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into())).unwrap();
        let Endpoint::Tcp(address) = *listener.endpoint() else { panic!("TCP") };
        let client = TcpStream::connect(address).await.unwrap();
        let Accepted { stream, caller } = listener.accept().await.unwrap();
        let (Unwatched::Tcp(stream), Caller::Tcp(peer)) = (stream, caller) else { panic!("TCP") };
        assert!(stream.nodelay().unwrap());
        assert_eq!(peer, client.local_addr().unwrap());
    }
}
