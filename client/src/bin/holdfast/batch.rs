//! The commands about many values: lines in, one call for some thousands of them, what came of each out.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use holdfast::v1::Limits;
use holdfast::{BatchExpect, Client, Error, Owners, Reason, StorageMap};
use serde_json::{Value as Json, json};

use self::lines::{Line, Values};
use crate::args::{Format, Mode};
use crate::commands::Done;
use crate::failure::Failure;
use crate::output::{Listing, Output};
use crate::value::{ValueType, to_hex, visible};

mod lines;

pub const EXAMPLES: &str = "\
Examples:
  echo task:$$ 42 | holdfast batch update tenant
  holdfast batch get tenant owners.txt -o json
  holdfast batch delete tenant owners.txt --failed";

/// What all of them read and tell.
const LINES: &str = "\
Lines:
  OWNER         of get and delete
  OWNER VALUE   of update; the value is as the map's type says: a number for
                u32, u64 and i64, the rest of the line for utf8, else hex

  OWNER is one of
    17, id:17             the owner that the server calls so: exact and fast
    task:4711             a process or thread; task:4711@123456 if it started
                          then; task:self is this command
    cgroup:/system.slice  a cgroup by its path; cgroup-id:77 by its inode
    simulated:7           a simulated owner

  Empty lines and lines that begin with # are left out. If a line is wrong,
  nothing is sent.

Each item is done or refused for itself: a batch is not atomic as a whole. Items
of one owner are done in their order. Exit code 1 if any of them was refused.";

#[derive(Debug, Subcommand)]
pub enum BatchCommand {
    /// Print the values of many owners
    #[command(after_help = with_lines(GET))]
    Get(BatchArgs),
    /// Create or replace the values of many owners
    #[command(after_help = with_lines(UPDATE))]
    Update(BatchUpdateArgs),
    /// Delete the values of many owners
    #[command(after_help = with_lines(DELETE))]
    Delete(BatchArgs),
}

const GET: &str = "\
Examples:
  holdfast batch get tenant owners.txt
  pgrep nginx | sed s/^/task:/ | holdfast batch get tenant
  holdfast batch get tenant owners.txt --failed      # who has none";

const UPDATE: &str = "\
Examples:
  holdfast batch update tenant values.txt
  pgrep nginx | sed 's/.*/task:& 42/' | holdfast batch update tenant
  holdfast batch update tenant values.txt --mode noexist --failed";

const DELETE: &str = "\
Examples:
  holdfast batch delete tenant owners.txt
  echo 17 | holdfast batch delete tenant";

fn with_lines(examples: &str) -> String {
    format!("{examples}\n\n{LINES}")
}

#[derive(Args, Debug)]
pub struct BatchArgs {
    /// The map's name
    pub map: String,
    /// A file with an item in each line; left out, or `-`: stdin
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Print only what was refused
    #[arg(long)]
    pub failed: bool,
    /// How many items go into one call at most; the server's limits may make it fewer
    #[arg(long, value_name = "N", default_value = "4096", value_parser = clap::value_parser!(u32).range(1..))]
    pub size: u32,
}

#[derive(Args, Debug)]
pub struct BatchUpdateArgs {
    #[command(flatten)]
    pub batch: BatchArgs,
    /// What must be there already
    #[arg(long, default_value = "any")]
    pub mode: Mode,
}

/// What is done with each item.
#[derive(Clone, Copy)]
enum What {
    Get,
    Update(Mode),
    Delete,
}

/// What came of it.
struct Item {
    owner: String,
    owner_id: Option<u64>,
    version: u64,
    /// Of a Get.
    value: Option<Vec<u8>>,
    status: Result<(), Reason>,
}

const VALUES: &[&str] = &["OWNER", "VERSION", "STATUS", "VALUE"];
const WRITES: &[&str] = &["OWNER", "VERSION", "STATUS"];

pub async fn run<W: Write>(client: &Client, command: BatchCommand, output: &mut Output<W>) -> Done {
    let (what, args) = match command {
        BatchCommand::Get(args) => (What::Get, args),
        BatchCommand::Update(BatchUpdateArgs { batch, mode }) => (What::Update(mode), batch),
        BatchCommand::Delete(args) => (What::Delete, args),
    };
    let map = client.get_map(&args.map).await?;
    let value_type = ValueType::named(&map.value_type);
    let values = match what {
        What::Update(_) => Values::Each { value_type, size: map.value_size as usize },
        What::Get | What::Delete => Values::None,
    };
    let lines = lines::read(args.file.as_deref(), values)?;
    let limits = client.info().await?.limits.unwrap_or_default();
    let batch = Batch { client, what, map: &map, value_type };

    let header = if matches!(what, What::Get) { VALUES } else { WRITES };
    let mut progress = Progress::new(output.format, args.failed, lines.len());
    let mut listing = Listing::new(output, header);
    let (mut done, mut refused) = (0, 0);
    while done < lines.len() {
        let count = fitting(&lines[done..], &map, &limits, args.size as usize);
        let items = match batch.call(&lines[done..][..count]).await {
            Ok(items) => items,
            Err(error) => {
                progress.end();
                return Err(broken_off(error, &lines[done], done));
            }
        };
        refused += items.iter().filter(|item| item.status.is_err()).count();
        let shown: Vec<_> = items.into_iter().filter(|item| !args.failed || item.status.is_err()).collect();
        listing.page(&shown, |item| batch.cells(item), |item| batch.json(item))?;
        done += count;
        progress.show(done, refused);
    }
    progress.end();
    listing.end()?;
    match refused {
        0 => Ok(()),
        refused => Err(Failure::Items { refused, of: done }),
    }
}

/// How many items make a call whose messages are both within the server's limit.
fn fitting(lines: &[Line], map: &StorageMap, limits: &Limits, most: usize) -> usize {
    let most = most.min(usize::try_from(limits.max_batch_items).unwrap_or(usize::MAX)).max(1);
    // A quarter is left for what they have besides.
    let room = limits.max_message_bytes / 4 * 3;
    let mut bytes = 0;
    let fits = lines.iter().take(most).take_while(|line| {
        // The value, its version, the owner's id, and the owner as it is named.
        bytes += u64::from(map.value_size) + 32 + line.name.len() as u64;
        bytes <= room
    });
    fits.count().max(1)
}

/// A call that failed as a whole: what was before it is done, and was shown.
fn broken_off(error: Error, line: &Line, done: usize) -> Failure {
    if done > 0 {
        let (owner, number) = (visible(&line.name), line.number);
        // Whoever closed stderr does not want to know.
        _ = writeln!(stderr(), "{done} items were sent before this, up to that of line {number} ({owner})");
    }
    error.into()
}

/// What is the same for all calls.
struct Batch<'a> {
    client: &'a Client,
    what: What,
    map: &'a StorageMap,
    value_type: ValueType,
}

impl Batch<'_> {
    async fn call(&self, lines: &[Line]) -> Result<Vec<Item>, Error> {
        let (client, map) = (self.client, &*self.map.name);
        let ids: Option<Vec<u64>> = lines.iter().map(|line| line.owner_id).collect();
        let owners = match &ids {
            Some(ids) => Owners::from(ids.clone()),
            None => lines.iter().map(|line| line.owner.clone()).collect::<Vec<_>>().into(),
        };
        // Its name must lead to the same map to the end.
        let expect = || BatchExpect { map_id: Some(self.map.map_id), ..BatchExpect::default() };
        let all = 0..lines.len();
        let (versions, owner_ids, outcomes): (_, _, Vec<_>) = match self.what {
            What::Get => {
                let got = client.batch_get_versions(map, owners).await?;
                let values = all.map(|index| got.value(index).map(|value| Some(value.to_vec()))).collect();
                (got.versions, got.owner_ids, values)
            }
            What::Update(mode) => {
                let values: Vec<u8> = lines.iter().flat_map(|line| line.value.iter().copied()).collect();
                let updated = client.batch_update_if(map, owners, values, mode.into(), expect()).await?;
                let statuses = all.map(|index| updated.status(index).map(|()| None)).collect();
                (updated.versions, updated.owner_ids, statuses)
            }
            What::Delete => {
                let deleted = client.batch_delete_if(map, owners, expect()).await?;
                let statuses = all.map(|index| deleted.status(index).map(|()| None)).collect();
                (deleted.versions, deleted.owner_ids, statuses)
            }
        };
        let owner_ids = ids.unwrap_or(owner_ids);
        let items = lines.iter().zip(outcomes).enumerate().map(|(index, (line, outcome))| Item {
            owner: line.name.clone(),
            owner_id: owner_ids.get(index).copied().filter(|id| *id != 0),
            version: versions.get(index).copied().unwrap_or_default(),
            status: outcome.as_ref().map(|_| ()).map_err(|reason| *reason),
            value: outcome.ok().flatten(),
        });
        Ok(items.collect())
    }

    fn cells(&self, item: &Item) -> Vec<String> {
        let version = if item.version == 0 { "-".to_owned() } else { item.version.to_string() };
        let status = item.status.map_or_else(name, |()| "ok".to_owned());
        let mut cells = vec![visible(&item.owner), version, status];
        if matches!(self.what, What::Get) {
            cells.push(item.value.as_ref().map_or_else(|| "-".to_owned(), |value| self.value_type.print(value)));
        }
        cells
    }

    fn json(&self, item: &Item) -> Json {
        let mut json = json!({
            "owner": item.owner,
            "owner_id": item.owner_id,
            "version": Some(item.version).filter(|version| *version != 0),
            "reason": item.status.err().map(name),
        });
        if matches!(self.what, What::Get) {
            json["value"] = item.value.as_ref().map_or(Json::Null, |value| self.value_type.read(value));
            json["hex"] = item.value.as_ref().map_or(Json::Null, |value| to_hex(value).into());
        }
        json
    }
}

fn name(reason: Reason) -> String {
    reason.code_name().to_owned()
}

/// How far it has come, for people who wait, and see nothing else.
struct Progress {
    shown: bool,
    all: usize,
}

impl Progress {
    fn new(format: Format, failed_only: bool, all: usize) -> Self {
        let rows = stdout().is_terminal() && (format == Format::Json || !failed_only);
        Self { shown: stderr().is_terminal() && !rows, all }
    }

    fn show(&mut self, done: usize, refused: usize) {
        if self.shown {
            _ = write!(stderr(), "\r{done} of {} items, {refused} refused ", self.all);
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            _ = writeln!(stderr());
        }
    }
}
