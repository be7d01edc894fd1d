//! The smallest BTF that local storage takes: a map's key is an `int`, its value an array of bytes.
//!
//! ```text
//!   header ── types: 1 int, 2 unsigned char, 3 unsigned char [value_size] ── strings: the empty one
//! ```
//!
//! Everything is in the byte order of the machine.

/// The type of the key: the kernel wants one signed integer of 32 bits, a descriptor.
pub(crate) const KEY: u32 = 1;
/// The type of the value.
pub(crate) const VALUE: u32 = 3;

const BYTE: u32 = 2;

const MAGIC: u16 = 0xEB9F;
const VERSION: u8 = 1;
const HEADER_LEN: u32 = 24;

const KIND_INT: u32 = 1 << 24;
const KIND_ARRAY: u32 = 3 << 24;
const SIGNED: u32 = 1 << 24;
/// The empty name.
const NO_NAME: u32 = 0;

/// The type information of a map whose values have `value_size` bytes.
pub(crate) fn describe(value_size: u32) -> Vec<u8> {
    let types = [
        // name, kind, size in bytes, then encoding and size in bits
        [NO_NAME, KIND_INT, 4, SIGNED | 32].as_slice(),
        &[NO_NAME, KIND_INT, 1, 8],
        // name, kind, unused, then type of an element, type of an index, number of elements
        &[NO_NAME, KIND_ARRAY, 0, BYTE, KEY, value_size],
    ]
    .concat();
    let strings = b"\0";
    let types_len = types.len() as u32 * 4;

    let mut btf = Vec::new();
    btf.extend(MAGIC.to_ne_bytes());
    btf.extend([VERSION, 0]);
    // Offsets count from the end of the header.
    let offsets = [HEADER_LEN, 0, types_len, types_len, strings.len() as u32];
    btf.extend(offsets.into_iter().chain(types).flat_map(u32::to_ne_bytes));
    btf.extend(strings);
    btf
}
