//! Values as people write and read them.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::Value as Json;

use crate::args::Bytes;
use crate::failure::Failure;

/// The largest value that is read from a file, in bytes: more than any map takes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A value as it was given.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    Bytes(Vec<u8>),
    Text(String),
    File(PathBuf),
}

/// What the bytes of a map's values mean: its `value_type`, as far as it has a meaning here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    U32,
    U64,
    I64,
    Utf8,
    /// None was given, or one that only its users know.
    Other,
}

impl ValueType {
    pub fn named(name: &str) -> Self {
        match name {
            "u32" => Self::U32,
            "u64" => Self::U64,
            "i64" => Self::I64,
            "utf8" => Self::Utf8,
            _ => Self::Other,
        }
    }

    /// The size of a value, where the type says it.
    pub fn size(self) -> Option<u32> {
        match self {
            Self::U32 => Some(4),
            Self::U64 | Self::I64 => Some(8),
            Self::Utf8 | Self::Other => None,
        }
    }

    /// The value for people. Bytes that are not of the type, as a map may hold whatever its users wrote, are printed in
    /// hex.
    pub fn print(self, bytes: &[u8]) -> String {
        match self.read(bytes) {
            Json::String(text) => visible(&text),
            number => number.to_string(),
        }
    }

    /// The value in JSON: a number, a text, or hex for anything else.
    pub fn read(self, bytes: &[u8]) -> Json {
        let number = match self {
            Self::U32 => bytes.try_into().ok().map(|bytes| u32::from_le_bytes(bytes).into()),
            Self::U64 => bytes.try_into().ok().map(|bytes| u64::from_le_bytes(bytes).into()),
            Self::I64 => bytes.try_into().ok().map(|bytes| i64::from_le_bytes(bytes).into()),
            Self::Utf8 => std::str::from_utf8(bytes).ok().map(|text| text.trim_end_matches('\0').into()),
            Self::Other => None,
        };
        number.unwrap_or_else(|| to_hex(bytes).into())
    }
}

/// A text with its control characters escaped, since it may come from anyone and go to a terminal.
pub fn visible(text: &str) -> String {
    let visible = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(visible).collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses `00ff`, `0x00ff` and, as bpftool prints it, `00 ff`.
pub fn hex(text: &str) -> Result<Bytes, String> {
    let digits: Vec<char> =
        text.strip_prefix("0x").unwrap_or(text).chars().filter(|c| !c.is_ascii_whitespace()).collect();
    if let Some(wrong) = digits.iter().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("{wrong:?} is not a hex digit"));
    }
    if !digits.len().is_multiple_of(2) {
        return Err(format!("{} hex digits make no whole bytes: expected two for each", digits.len()));
    }
    let digit = |c: char| c.to_digit(16).unwrap_or_default() as u8;
    Ok(digits.chunks(2).map(|pair| (digit(pair[0]) << 4) | digit(pair[1])).collect())
}

/// A number that knows its hex.
pub trait Unsigned: FromStr + Send + Sync + Clone + 'static {
    const MAX: Self;
    fn from_hex(digits: &str) -> Option<Self>;
}

impl Unsigned for u32 {
    const MAX: Self = u32::MAX;
    fn from_hex(digits: &str) -> Option<Self> {
        Self::from_str_radix(digits, 16).ok()
    }
}

impl Unsigned for u64 {
    const MAX: Self = u64::MAX;
    fn from_hex(digits: &str) -> Option<Self> {
        Self::from_str_radix(digits, 16).ok()
    }
}

/// Parses `42` and `0x2a`.
pub fn unsigned<T: Unsigned + std::fmt::Display>(text: &str) -> Result<T, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => T::from_hex(digits),
        None => text.parse().ok(),
    };
    number.ok_or_else(|| format!("expected a number from 0 to {}, or hex after 0x", T::MAX))
}

/// Parses `-42`.
pub fn signed(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("expected a number from {} to {}", i64::MIN, i64::MAX))
}

/// Reads a file, or stdin for `-`, of up to [`MAX_FILE_BYTES`].
pub fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let refuse = |what: String| Failure::usage(format!("--file {}: {what}", path.display()));
    let mut bytes = Vec::new();
    let mut read = |from: &mut dyn Read| from.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    let done = match path.to_str() {
        Some("-") => read(&mut stdin().lock()),
        _ => File::open(path).and_then(|mut file| read(&mut file)),
    };
    match done {
        Err(error) => Err(refuse(error.to_string())),
        Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => Err(refuse(format!("larger than {MAX_FILE_BYTES} bytes"))),
        Ok(_) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests;
