//! A program in a file: what `program list -o json` prints for one.

use std::path::Path;

use clap::ValueEnum;
use holdfast::{HookPoint, OnError, Program, Step};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::OnErrorArg;
use crate::failure::Failure;
use crate::value::read_file;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "one program, as `holdfast program list -o json` prints it")]
struct File {
    name: String,
    hook: String,
    /// Empty: all maps. Not optional: who forgets it should not get all of them.
    map: String,
    #[serde(default)]
    on_error: Option<String>,
    steps: Vec<FileStep>,
    // What the server adds. Any other name may be one of the above that is misspelt.
    #[serde(default, rename = "program_id")]
    _program_id: IgnoredAny,
    #[serde(default, rename = "attached")]
    _attached: IgnoredAny,
    #[serde(default, rename = "runs")]
    _runs: IgnoredAny,
    #[serde(default, rename = "recursion_misses")]
    _recursion_misses: IgnoredAny,
    #[serde(default, rename = "failed_operations")]
    _failed_operations: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a step is a text, or an object with a text `step`")]
enum FileStep {
    Text(String),
    Counted { step: String },
}

/// Reads a program from a file, or from stdin for `-`.
pub fn read(path: &Path) -> Result<Program, Failure> {
    let bytes = read_file(path)?;
    parse(&bytes).map_err(|what| Failure::usage(format!("--file {}: {what}", path.display())))
}

pub fn parse(bytes: &[u8]) -> Result<Program, String> {
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err("a list; expected one program, an object: `jq '.[0]'` takes the first one out of it".to_owned());
    }
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let hook = HookPoint::from_short_name(&file.hook).ok_or_else(|| {
        let names = HookPoint::ALL.map(HookPoint::short_name).join(", ");
        format!("hook: {:?} is no hook point; expected one of {names}", file.hook)
    })?;
    let on_error = match file.on_error {
        None => OnErrorArg::Count,
        Some(name) => OnErrorArg::from_str(&name, false)
            .map_err(|_| format!("on_error: {name:?}; expected \"count\" or \"fail\""))?,
    };
    let step = |(number, step): (usize, FileStep)| {
        let (FileStep::Text(text) | FileStep::Counted { step: text }) = step;
        text.parse::<Step>().map_err(|error| format!("step {number}: {error}"))
    };
    Ok(Program {
        name: file.name,
        hook: hook.into(),
        map: file.map,
        steps: (1..).zip(file.steps).map(step).collect::<Result<_, _>>()?,
        on_error: OnError::from(on_error).into(),
    })
}
