//! The process at the other end of a Unix socket: owner `self`.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// `SO_PEERPIDFD` of getsockopt(2), Linux 6.5. The same number on every architecture that Rust's std supports on Linux
/// except sparc and parisc, where asking simply fails.
const SO_PEERPIDFD: libc::c_int = 77;

/// The process that connected a Unix socket, as it was at that moment. A descriptor that was passed on or inherited
/// still speaks for the process that made the connection.
#[derive(Debug)]
pub struct Peer {
    /// Its pid in our pid namespace; 0 when it is not visible there.
    pub pid: i32,
    /// Its effective user id at connect(2), in our user namespace.
    pub uid: u32,
    /// Its effective group id at connect(2), in our user namespace.
    pub gid: u32,
    /// The process itself; none when it had exited, or when the kernel can name it by a pid only and that pid is not
    /// visible here.
    pub pidfd: Option<OwnedFd>,
}

/// Who is at the other end of a connected Unix socket. The pidfd comes from the connection itself where the kernel has
/// SO_PEERPIDFD (Linux 6.5); elsewhere the pid of the credentials is opened at once, and a peer that exited between its
/// connect(2) and this call could be mistaken for the pid's next holder: call it when the connection is accepted.
pub fn peer_of(socket: impl AsFd) -> io::Result<Peer> {
    let socket = socket.as_fd();
    let (pid, uid, gid) = credentials(socket.as_raw_fd())?;
    let pidfd = match peer_pidfd(socket.as_raw_fd()) {
        Ok(pidfd) => Some(pidfd),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        }
        // Exited and reaped already (older kernels).
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL | libc::ENODATA)) => None,
        Err(error) => return Err(error),
    };
    Ok(Peer { pid, uid, gid, pidfd })
}

/// SO_PEERCRED. Not rustix' wrapper: its pid type has no zero, which is what the kernel says for a peer outside our pid
/// namespace.
fn credentials(socket: RawFd) -> io::Result<(i32, u32, u32)> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `found` is a plain C struct that outlives the call, and `length` is its size, so the kernel writes at
    // most that much. The caller borrows the socket, so the descriptor stays open.
    let result = unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // A TCP socket answers with a pid of 0 and ids of -1.
    if found.uid == u32::MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a connected Unix socket: it has no peer process"));
    }
    Ok((found.pid, found.uid, found.gid))
}

fn peer_pidfd(socket: RawFd) -> io::Result<OwnedFd> {
    let mut pidfd: RawFd = -1;
    let mut length = size_of::<RawFd>() as libc::socklen_t;
    // SAFETY: `pidfd` is an int that outlives the call and `length` is its size, so the kernel writes at most that
    // much. The caller borrows the socket, so the descriptor stays open.
    let result =
        unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, SO_PEERPIDFD, (&raw mut pidfd).cast(), &raw mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if pidfd < 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: the kernel has just installed this descriptor for us (close-on-exec), and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}
