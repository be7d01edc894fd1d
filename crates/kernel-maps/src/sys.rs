//! bpf(2): the five commands that local storage needs, with the argument of each as the kernel lays it out.
//!
//! The kernel takes an argument shorter than its own as if it ended in zeroes, so each struct ends where our fields do. None has padding
//! that is not a field, since the kernel reads every byte.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::btf;

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const BTF_LOAD: libc::c_long = 18;

/// `BPF_F_NO_PREALLOC`: elements are allocated when they are needed. Local storage takes no map without it.
const NO_PREALLOC: u32 = 1;
/// `BPF_OBJ_NAME_LEN`: with the zero at the end.
pub(crate) const NAME_LEN: usize = 16;

/// For `BPF_BTF_LOAD`.
#[repr(C, align(8))]
struct LoadBtf {
    btf: u64,
    log: u64,
    btf_size: u32,
    log_size: u32,
    log_level: u32,
    /// Written by kernels that know it.
    log_true_size: u32,
}

/// For `BPF_MAP_CREATE`.
#[repr(C, align(8))]
struct CreateMap {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; NAME_LEN],
    map_ifindex: u32,
    btf_fd: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
    btf_vmlinux_value_type_id: u32,
}

/// For the commands on one element.
#[repr(C, align(8))]
struct Element {
    map_fd: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    /// For an element of `map`; `key` is the owner's descriptor, which must outlive the command, as what is at `value` must.
    fn new(map: BorrowedFd<'_>, key: &libc::c_int, value: u64, flags: u64) -> Element {
        let key = std::ptr::from_ref(key).expose_provenance() as u64;
        Element { map_fd: number(map), unused: 0, key, value, flags }
    }
}

/// # Safety
///
/// `argument` must be the struct of this command, of integers alone and without padding, and every address in it must be valid for what
/// the command does there.
unsafe fn bpf<T>(command: libc::c_long, argument: &mut T) -> Result<libc::c_long, i32> {
    // SAFETY: bpf(2) reads, and where it answers in the argument writes, `size_of::<T>()` bytes at `argument`, which are ours and
    // initialized. The addresses inside are the caller's promise.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(argument), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(answer) }
}

/// Takes the descriptor that a command has made.
fn owned(answer: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made it for us (with O_CLOEXEC), so nobody else has it. A descriptor is an int.
    unsafe { OwnedFd::from_raw_fd(answer as libc::c_int) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // A descriptor that is open is never negative.
    fd.as_raw_fd() as u32
}

fn load_btf(btf: &[u8]) -> Result<OwnedFd, i32> {
    let mut argument = LoadBtf {
        btf: btf.as_ptr().expose_provenance() as u64,
        log: 0,
        btf_size: btf.len() as u32,
        log_size: 0,
        log_level: 0,
        log_true_size: 0,
    };
    // SAFETY: the kernel reads `btf_size` bytes at `btf`, which is that slice, and writes no log.
    unsafe { bpf(BTF_LOAD, &mut argument) }.map(owned)
}

/// Makes a map of local storage. `name` ends in a zero.
pub(crate) fn create(map_type: u32, value_size: u32, map_name: [u8; NAME_LEN]) -> Result<OwnedFd, i32> {
    let btf = load_btf(&btf::describe(value_size))?;
    let mut argument = CreateMap {
        map_type,
        key_size: size_of::<libc::c_int>() as u32,
        value_size,
        max_entries: 0,
        map_flags: NO_PREALLOC,
        inner_map_fd: 0,
        numa_node: 0,
        map_name,
        map_ifindex: 0,
        btf_fd: number(btf.as_fd()),
        btf_key_type_id: btf::KEY,
        btf_value_type_id: btf::VALUE,
        btf_vmlinux_value_type_id: 0,
    };
    // SAFETY: there is no address in it.
    unsafe { bpf(MAP_CREATE, &mut argument) }.map(owned)
}

/// Reads an owner's value, as long as `value`, which must be exactly as long as the map's values.
///
/// # Safety
///
/// The kernel writes as many bytes as the map's values have, whatever the length of `value`.
pub(crate) unsafe fn lookup(map: BorrowedFd<'_>, owner: BorrowedFd<'_>, value: &mut [u8]) -> Result<(), i32> {
    let key = owner.as_raw_fd();
    let mut argument = Element::new(map, &key, value.as_mut_ptr().expose_provenance() as u64, 0);
    // SAFETY: the kernel reads a key of four bytes, which `key` is, and writes one value, which is as long as the slice, by our own contract.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut argument) }.map(drop)
}

/// Creates or replaces an owner's value.
///
/// # Safety
///
/// The kernel reads as many bytes as the map's values have, whatever the length of `value`.
pub(crate) unsafe fn update(map: BorrowedFd<'_>, owner: BorrowedFd<'_>, value: &[u8], flags: u64) -> Result<(), i32> {
    let key = owner.as_raw_fd();
    let mut argument = Element::new(map, &key, value.as_ptr().expose_provenance() as u64, flags);
    // SAFETY: the kernel reads a key of four bytes, which `key` is, and one value, which is as long as the slice, by our own contract.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut argument) }.map(drop)
}

/// Deletes an owner's value.
pub(crate) fn delete(map: BorrowedFd<'_>, owner: BorrowedFd<'_>) -> Result<(), i32> {
    let key = owner.as_raw_fd();
    let mut argument = Element::new(map, &key, 0, 0);
    // SAFETY: the kernel reads a key of four bytes, which `key` is.
    unsafe { bpf(MAP_DELETE_ELEM, &mut argument) }.map(drop)
}
