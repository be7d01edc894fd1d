//! The items of a batch, as they are written.

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::Path;

use holdfast::Owner;

use crate::args::task;
use crate::failure::Failure;
use crate::value::{self, ValueType};

/// What stands behind the owner.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    None,
    Each { value_type: ValueType, size: usize },
}

/// An item.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// As it is written.
    pub name: String,
    pub owner: Owner,
    /// If that is how the owner is named.
    pub owner_id: Option<u64>,
    pub value: Vec<u8>,
}

/// All of them, or what is wrong with the first that is: before anything is sent.
pub fn read(file: Option<&Path>, values: Values) -> Result<Vec<Line>, Failure> {
    let stdin_or = file.filter(|path| path.to_str() != Some("-"));
    let place = stdin_or.map_or("stdin".to_owned(), |path| path.display().to_string());
    let lines = match stdin_or {
        None => parse(stdin().lock(), values),
        Some(path) => {
            File::open(path).map_err(|error| error.to_string()).and_then(|file| parse(BufReader::new(file), values))
        }
    };
    let lines = lines.map_err(|what| Failure::usage(format!("{place}: {what}")))?;
    match lines.is_empty() {
        true => Err(Failure::usage(format!("{place}: there is no item in it; --help shows how they are written"))),
        false => Ok(lines),
    }
}

fn parse(from: impl BufRead, values: Values) -> Result<Vec<Line>, String> {
    let mut items = Vec::new();
    for (line, number) in from.lines().zip(1..) {
        let line = line.map_err(|error| format!("line {number}: {error}"))?;
        let text = line.trim_start();
        if text.trim_end().is_empty() || text.starts_with('#') {
            continue;
        }
        items.push(item(number, text, values).map_err(|what| format!("line {number}: {what}"))?);
    }
    Ok(items)
}

fn item(number: usize, text: &str, values: Values) -> Result<Line, String> {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (owner, owner_id) = owner(name)?;
    let value = match values {
        Values::None if rest.trim().is_empty() => Vec::new(),
        Values::None => return Err(format!("expected an owner alone, and there is {:?} behind it", rest.trim())),
        Values::Each { value_type, size } => bytes(rest, value_type, size)?,
    };
    Ok(Line { number, name: name.to_owned(), owner, owner_id, value })
}

fn owner(name: &str) -> Result<(Owner, Option<u64>), String> {
    let number = |text: &str| value::unsigned::<u64>(text);
    let owner = match name.split_once(':') {
        None | Some(("id", _)) => {
            let id = number(name.strip_prefix("id:").unwrap_or(name)).map_err(|_| format!("{name:?} {EXPECTED}"))?;
            return Ok((Owner::id(id), Some(id)));
        }
        Some(("task", text)) => task(text)?.into(),
        Some(("cgroup", path)) => Owner::cgroup(path),
        Some(("cgroup-id", text)) => Owner::cgroup_id(number(text)?),
        Some(("simulated", text)) => Owner::simulated(number(text)?),
        Some(_) => return Err(format!("{name:?} {EXPECTED}")),
    };
    Ok((owner, None))
}

const EXPECTED: &str =
    "is no owner: expected an owner id, task:PID, cgroup:PATH, cgroup-id:ID or simulated:ID; a path has no blanks here";

/// A value as the map's type has it written.
fn bytes(text: &str, value_type: ValueType, size: usize) -> Result<Vec<u8>, String> {
    let word = text.trim();
    if word.is_empty() && value_type != ValueType::Utf8 {
        return Err("expected a value behind the owner".to_owned());
    }
    let bytes = match value_type {
        ValueType::U32 => value::unsigned::<u32>(word)?.to_le_bytes().to_vec(),
        ValueType::U64 => value::unsigned::<u64>(word)?.to_le_bytes().to_vec(),
        ValueType::I64 => value::signed(word)?.to_le_bytes().to_vec(),
        ValueType::Utf8 => {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(bytes.len().max(size), 0);
            bytes
        }
        ValueType::Other => value::hex(word)?.into_vec(),
    };
    match bytes.len() == size {
        true => Ok(bytes),
        false => Err(format!("the value has {} bytes, and the map's values have {size}", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(value_type: ValueType, size: usize) -> Values {
        Values::Each { value_type, size }
    }

    fn one(text: &str, values: Values) -> Result<(Owner, Option<u64>, Vec<u8>), String> {
        let mut lines = parse(text.as_bytes(), values)?;
        assert_eq!(lines.len(), 1, "{text}");
        Ok(lines.pop().map(|line| (line.owner, line.owner_id, line.value)).expect("one"))
    }

    #[test]
    fn owners_are_written_in_every_way() {
        for (text, owner, id) in [
            ("17", Owner::id(17), Some(17)),
            (" 0x11\t", Owner::id(17), Some(17)),
            ("id:17", Owner::id(17), Some(17)),
            ("task:4711", Owner::task(4711), None),
            ("task:4711@99", Owner::task_at(4711, 99), None),
            ("task:self", Owner::this_process(), None),
            ("cgroup:/a:b/c", Owner::cgroup("/a:b/c"), None),
            ("cgroup-id:5", Owner::cgroup_id(5), None),
            ("simulated:7\r", Owner::simulated(7), None),
        ] {
            assert_eq!(one(text, Values::None), Ok((owner, id, Vec::new())), "{text}");
        }
    }

    #[test]
    fn values_are_written_as_the_type_says() {
        for (text, value_type, size, bytes) in [
            ("1 258", ValueType::U32, 4, &[2, 1, 0, 0][..]),
            ("1 0x102", ValueType::U64, 8, &[2, 1, 0, 0, 0, 0, 0, 0]),
            ("1   -2 ", ValueType::I64, 8, &[254, 255, 255, 255, 255, 255, 255, 255]),
            ("1 a b", ValueType::Utf8, 5, b"a b\0\0"),
            ("1", ValueType::Utf8, 2, &[0, 0]),
            ("1 00 ff", ValueType::Other, 2, &[0, 255]),
        ] {
            assert_eq!(one(text, each(value_type, size)).map(|item| item.2), Ok(bytes.to_vec()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let number = each(ValueType::U64, 8);
        for (text, values, told) in [
            ("x", Values::None, "\"x\" is no owner"),
            ("pid:1", Values::None, "\"pid:1\" is no owner"),
            ("task:0", Values::None, "expected a pid"),
            ("simulated:-1", Values::None, "expected a number"),
            ("1 2", Values::None, "\"2\" behind it"),
            ("1", number, "expected a value"),
            ("1 -2", number, "expected a number"),
            ("1 aa", each(ValueType::Other, 2), "has 1 bytes, and the map's values have 2"),
            ("1 abc", each(ValueType::Utf8, 2), "has 3 bytes, and the map's values have 2"),
        ] {
            let wrong = parse(format!("# first\n\n{text}\n").as_bytes(), values).expect_err(text);
            assert!(wrong.starts_with("line 3: ") && wrong.contains(told), "{text}: {wrong}");
        }
        assert!(parse(&b"1\n\xff\n"[..], Values::None).expect_err("no text").starts_with("line 2: "));
    }

    #[test]
    fn lines_keep_their_numbers_and_order() {
        let lines = parse("# two\n3\n\n  # more\nid:1\n".as_bytes(), Values::None).expect("good");
        assert_eq!(
            lines.iter().map(|line| (line.number, line.owner_id)).collect::<Vec<_>>(),
            [(2, Some(3)), (5, Some(1))]
        );
    }
}
