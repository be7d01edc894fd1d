//! A cgroup by its id: kernfs' file handles are the id itself, so one can be made without having seen the directory.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// `FILEID_KERNFS` (Linux 5.5): the handle is the 64-bit id.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// `struct file_handle` of open_by_handle_at(2) with the eight bytes that kernfs uses.
#[repr(C)]
struct KernfsHandle {
    handle_bytes: libc::c_uint,
    handle_type: libc::c_int,
    id: [u8; 8],
}

/// Opens (O_PATH) the directory of the cgroup with this id, on the filesystem that `mount` is part of. ESTALE: there is
/// none. EPERM: without CAP_DAC_READ_SEARCH in the initial user namespace.
pub(super) fn open(mount: impl AsFd, id: u64) -> Result<OwnedFd, Errno> {
    let mut handle = KernfsHandle { handle_bytes: 8, handle_type: FILEID_KERNFS, id: id.to_ne_bytes() };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let mount = mount.as_fd();
    // SAFETY: `handle` has the layout of the C struct, outlives the call, and announces exactly the bytes that follow
    // its head; the kernel only reads it. `mount` is borrowed, so its descriptor stays open.
    let result = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut handle, flags) };
    let Ok(descriptor) = RawFd::try_from(result) else {
        return Err(Errno::BADF);
    };
    if descriptor < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    // SAFETY: the call has just returned this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
