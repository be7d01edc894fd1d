//! What can be typed: the commands, their arguments and their help.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use holdfast::{MapKind, UpdateMode};

pub use self::owner::{OwnerArgs, OwnerCommand, OwnerShowArgs, task};
use crate::value::{self, Input};

mod owner;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Values that live exactly as long as a task or a cgroup: the command line of Holdfast
///
/// A map gives every task (or every cgroup) of a machine one value of a fixed size. A value goes with its owner.
/// The server is `holdfastd`.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, styles = STYLES, max_term_width = 110, after_help = "\
Examples:
  holdfastd                                          # in another terminal
  holdfast map create tenant --kind task --type u64  # one u64 for each task
  holdfast update tenant --task $$ --u64 42          # tag this shell
  holdfast get tenant --task $$                      # 42
  holdfast list tenant                               # all who have a value
  holdfast owner show $$                             # what the server knows
  holdfast delete tenant --task $$                   # or leave the shell

Exit codes:
  0  done
  1  refused by the server: nothing has changed; stderr has the reason
  2  wrong usage
  3  cannot connect: nothing was sent
  4  nobody knows: no answer in time, or connection lost; also if the answer
     could not be written

Environment:
  HOLDFAST_ENDPOINT  where the server listens, unless --endpoint tells it")]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

// The environment's endpoint is not clap's business: it would print it in every usage, as if it had been typed.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// Where the server listens: http://HOST[:PORT] or unix:///PATH [env: HOLDFAST_ENDPOINT] [default:
    /// http://127.0.0.1:7411]
    #[arg(long, global = true, value_hint = ValueHint::Other)]
    pub endpoint: Option<String>,
    /// How long each call may take, its retries included: 500ms, 10s, 2m
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub timeout: Duration,
    /// How to print: text for people, or JSON (one object, or one array for listings)
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
    /// Try once, also where the server says that a retry may help
    #[arg(long, global = true)]
    pub no_retry: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines and tables
    Table,
    /// JSON: field names as in the API, 64-bit numbers as numbers
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, list, show and free maps
    #[command(
        subcommand,
        after_help = "\
Examples:
  holdfast map create tenant --kind task --type u64
  holdfast map list
  holdfast map free tenant"
    )]
    Map(MapCommand),
    /// Print an owner's value
    ///
    /// Prints the value alone, so that `$(holdfast get ...)` is usable, as the map's value type says: u32, u64 and i64
    /// (little-endian) as a number, utf8 as text without the NULs at its end and with control characters escaped,
    /// anything else in hex.
    #[command(
        override_usage = "holdfast get [OPTIONS] <MAP> <--task PID|--cgroup PATH|...> [--create [--u64 N|--text TEXT|...]]",
        after_help = "\
Examples:
  holdfast get tenant --task 4711
  holdfast get tenant --task 4711 -v                 # and version, owner id
  holdfast get tenant --task 4711 -o json
  holdfast get quota --cgroup /system.slice/nginx.service
  holdfast get tenant --task 4711 --create           # zeroes if there is none
  holdfast get tenant --task 4711 --create --u64 42  # 42 if there is none
  holdfast get blob --task 4711 --raw > value.bin        # the very bytes"
    )]
    Get(GetArgs),
    /// Create an owner's value; refused if there is one
    #[command(
        override_usage = "holdfast create [OPTIONS] <MAP> <--task PID|--cgroup PATH|...> <--u64 N|--text TEXT|...>",
        after_help = "\
Examples:
  holdfast create tenant --task 4711 --u64 42
  holdfast create label --cgroup /system.slice/nginx.service --text gold
  holdfast create blob --owner-id 17 --file value.bin

Prints: version V owner_id N"
    )]
    Create(CreateArgs),
    /// Create or replace an owner's value
    #[command(
        override_usage = "holdfast update [OPTIONS] <MAP> <--task PID|--cgroup PATH|...> <--u64 N|--text TEXT|...>",
        after_help = "\
Examples:
  holdfast update tenant --task 4711 --u64 43
  holdfast update tenant --task 4711 --u64 43 --mode exist  # if there is one
  holdfast update tenant --task 4711 --u64 43 --expect-version 12
  holdfast update mask --simulated 7 --hex 00ff00ff

--expect-version is compare and swap: refused if anybody wrote since.

Prints: version V owner_id N"
    )]
    Update(UpdateArgs),
    /// Delete an owner's value
    #[command(
        override_usage = "holdfast delete [OPTIONS] <MAP> <--task PID|--cgroup PATH|...>",
        after_help = "\
Examples:
  holdfast delete tenant --task 4711
  holdfast delete tenant --owner-id 17 --expect-version 12

Prints: owner_id N"
    )]
    Delete(DeleteArgs),
    /// List the values of a map with their owners
    ///
    /// Fetches page by page: a value that is there all the time appears exactly once.
    #[command(after_help = "\
Examples:
  holdfast list tenant
  holdfast list tenant -o json")]
    List(ListArgs),
    /// Read, write or delete the values of many owners: an item in each line of a file or of stdin
    #[command(subcommand, after_help = crate::batch::EXAMPLES)]
    Batch(crate::batch::BatchCommand),
    /// Show, list and simulate owners: the tasks and cgroups that values belong to
    #[command(
        subcommand,
        after_help = "\
Examples:
  holdfast owner show 4711
  holdfast owner list --kind cgroup
  holdfast owner create-simulated --kind task --count 1000"
    )]
    Owner(OwnerCommand),
    /// Attach, list and detach programs: steps that run inside of calls
    #[command(subcommand, long_about = crate::program::ABOUT, after_help = crate::program::EXAMPLES)]
    Program(crate::program::ProgramCommand),
    /// Ask the server about itself
    #[command(
        subcommand,
        after_help = "\
Examples:
  holdfast admin info
  holdfast admin stats -o json"
    )]
    Admin(AdminCommand),
    /// Try what the two guards do: in this process, or against a server
    #[cfg(feature = "lab")]
    #[command(subcommand, after_help = crate::lab::EXAMPLES)]
    Lab(crate::lab::LabCommand),
    /// Print what makes a shell complete commands and options
    #[command(after_help = "\
Examples:
  source <(holdfast completion bash)    # for this shell alone
  holdfast completion bash > ~/.local/share/bash-completion/completions/holdfast
  holdfast completion zsh > ~/.zfunc/_holdfast    # needs fpath+=~/.zfunc
  holdfast completion fish > ~/.config/fish/completions/holdfast.fish
  holdfast completion elvish >> ~/.config/elvish/rc.elv
  holdfast completion powershell >> $PROFILE

For zsh, ~/.zshrc has fpath+=~/.zfunc before compinit.

Packages write to:
  /usr/share/bash-completion/completions/holdfast
  /usr/share/zsh/site-functions/_holdfast
  /usr/share/fish/vendor_completions.d/holdfast.fish")]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write one page for every command
    #[command(after_help = "\
Examples:
  holdfast man | man -l -
  holdfast man --dir /usr/share/man/man1

Writes: holdfast.1, holdfast-get.1, holdfast-map-create.1 and so on")]
    Man {
        /// Where to write all pages; is made if it is not there
        #[arg(long, value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum MapCommand {
    /// Create a map
    #[command(after_help = "\
Examples:
  holdfast map create tenant --kind task --type u64
  holdfast map create label --kind cgroup --type utf8 --value-size 32
  holdfast map create blob --kind task --value-size 256 --max-elements 1000

Prints: map_id N")]
    Create(MapCreateArgs),
    /// List the maps
    #[command(after_help = "\
Examples:
  holdfast map list
  holdfast map list -o json")]
    List,
    /// Show one map
    #[command(after_help = "\
Examples:
  holdfast map show tenant
  holdfast map show tenant -o json")]
    Show {
        /// The map's name
        name: String,
    },
    /// Free a map with all its values
    ///
    /// Once accepted it finishes even if you interrupt the command. Gets more time for large maps with --timeout.
    #[command(after_help = "\
Examples:
  holdfast map free tenant
  holdfast map free tenant --expect-map-id 3    # no later one of that name
  holdfast map free tenant --timeout 2m

Prints: freed_elements N")]
    Free {
        /// The map's name
        name: String,
        /// Only if it is the map with this id
        #[arg(long, value_name = "ID", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
        expect_map_id: Option<u64>,
    },
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("size").args(["value_type", "value_size"]).required(true).multiple(true))]
pub struct MapCreateArgs {
    /// The map's name: up to 128 of A-Z a-z 0-9 _ . : / -, beginning with a letter or a digit
    pub name: String,
    /// Whose values it holds
    #[arg(long)]
    pub kind: Kind,
    /// The size of every value in bytes; --type u32, u64 and i64 imply it
    #[arg(long, value_name = "BYTES", value_parser = value::unsigned::<u32>, allow_negative_numbers = true)]
    pub value_size: Option<u32>,
    /// What a value is, for those who print it: u32, u64, i64 (little-endian), utf8, or a name of your own
    #[arg(long = "type", value_name = "NAME")]
    pub value_type: Option<String>,
    /// The most values it may have; 0 is the server's default, as `admin info` shows it
    #[arg(long, value_name = "N", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
    pub max_elements: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Tasks: processes and threads
    Task,
    /// Cgroups of version 2
    Cgroup,
}

impl From<Kind> for MapKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Task => MapKind::Task,
            Kind::Cgroup => MapKind::Cgroup,
        }
    }
}

// The value is for --create alone.
#[derive(Args, Debug)]
#[command(mut_group("ValueArgs", |group| group.required(false).requires("create")))]
pub struct GetArgs {
    /// The map's name
    pub map: String,
    /// Create the value if there is none: as given, or as zeroes
    #[arg(long)]
    pub create: bool,
    /// Tell version and owner id on stderr
    #[arg(short, long, conflicts_with = "raw")]
    pub verbose: bool,
    /// Write the bytes of the value as they are, without a newline
    #[arg(long, conflicts_with = "output")]
    pub raw: bool,
    #[command(flatten)]
    pub owner: OwnerArgs,
    #[command(flatten)]
    pub value: ValueArgs,
}

#[derive(Args, Debug)]
pub struct CreateArgs {
    /// The map's name
    pub map: String,
    #[command(flatten)]
    pub owner: OwnerArgs,
    #[command(flatten)]
    pub value: ValueArgs,
}

#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// The map's name
    pub map: String,
    /// What must be there already
    #[arg(long, default_value = "any")]
    pub mode: Mode,
    #[command(flatten)]
    pub expect: ExpectArgs,
    #[command(flatten)]
    pub owner: OwnerArgs,
    #[command(flatten)]
    pub value: ValueArgs,
}

#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// The map's name
    pub map: String,
    #[command(flatten)]
    pub expect: ExpectArgs,
    #[command(flatten)]
    pub owner: OwnerArgs,
}

#[derive(Args, Debug)]
pub struct ListArgs {
    /// The map's name
    pub map: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// A value or none
    Any,
    /// No value: create only
    Noexist,
    /// A value: replace only
    Exist,
}

impl From<Mode> for UpdateMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Any => UpdateMode::Any,
            Mode::Noexist => UpdateMode::Noexist,
            Mode::Exist => UpdateMode::Exist,
        }
    }
}

#[derive(Args, Debug)]
pub struct ExpectArgs {
    /// Only if the value has this version
    #[arg(long, value_name = "VERSION", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
    pub expect_version: Option<u64>,
    /// Only if the map is the one with this id
    #[arg(long, value_name = "ID", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
    pub expect_map_id: Option<u64>,
}

impl From<ExpectArgs> for holdfast::Expect {
    fn from(args: ExpectArgs) -> Self {
        Self { version: args.expect_version, map_id: args.expect_map_id }
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "VALUE, one of")]
#[group(required = true, multiple = false)]
pub struct ValueArgs {
    /// The bytes in hex, in the order of their addresses; blanks between them are allowed
    #[arg(long, value_name = "BYTES", value_parser = value::hex)]
    pub hex: Option<Bytes>,
    /// A text; in a map of type utf8 it is filled up with NULs to the value size
    #[arg(long, allow_hyphen_values = true)]
    pub text: Option<String>,
    /// A number of 4 bytes, little-endian; decimal, or hex after 0x
    #[arg(long, value_name = "N", value_parser = value::unsigned::<u32>, allow_negative_numbers = true)]
    pub u32: Option<u32>,
    /// A number of 8 bytes, little-endian; decimal, or hex after 0x
    #[arg(long, value_name = "N", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
    pub u64: Option<u64>,
    /// A signed number of 8 bytes, little-endian; decimal
    #[arg(long, value_name = "N", value_parser = value::signed, allow_negative_numbers = true)]
    pub i64: Option<i64>,
    /// The bytes of a file; `-` is stdin
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// Not a plain `Vec`, which to clap would be an argument that may be repeated.
pub type Bytes = Box<[u8]>;

impl ValueArgs {
    /// The value that was given, None for none.
    pub fn input(self) -> Option<Input> {
        let Self { hex, text, u32, u64, i64, file } = self;
        hex.map(|bytes| Input::Bytes(bytes.into_vec()))
            .or(text.map(Input::Text))
            .or(u32.map(|n| Input::Bytes(n.to_le_bytes().to_vec())))
            .or(u64.map(|n| Input::Bytes(n.to_le_bytes().to_vec())))
            .or(i64.map(|n| Input::Bytes(n.to_le_bytes().to_vec())))
            .or(file.map(Input::File))
    }
}

#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Show version, instance, workers and limits
    ///
    /// A new instance_id means that the server has restarted and that all maps and values are gone.
    #[command(after_help = "\
Examples:
  holdfast admin info
  holdfast admin info -o json")]
    Info,
    /// Show what the server has counted: locks, mailboxes, maps, owners
    #[command(after_help = "\
Examples:
  holdfast admin stats
  holdfast admin stats -o json")]
    Stats,
}

/// What was typed. Does not return if that is wrong or asks for help.
pub fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        // clap does not tell which one.
        if let (ErrorKind::InvalidUtf8, Some(wrong)) = (error.kind(), env::args_os().find(|arg| arg.to_str().is_none()))
        {
            let what = format!("{wrong:?} is not UTF-8: --hex and --file take any bytes, --cgroup-id any cgroup");
            Cli::command().error(ErrorKind::InvalidUtf8, what).exit();
        }
        error.exit()
    })
}

fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be longer than 0".to_owned()),
        Ok(timeout) => Ok(timeout),
        Err(_) => Err("expected a number with its unit, such as 500ms, 10s or 2m".to_owned()),
    }
}

#[cfg(test)]
mod tests;
