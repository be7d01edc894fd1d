//! How an owner is named, and the commands about owners.

use clap::{Args, Subcommand};
use holdfast::Owner;

use super::Kind;
use crate::value;

#[derive(Args, Debug)]
#[command(next_help_heading = "OWNER, one of")]
#[group(required = true, multiple = false)]
pub struct OwnerArgs {
    /// A process or thread by its id in the server's pid namespace. PID@TICKS means the one that started then (field
    /// 22 of /proc/PID/stat), should the pid have been reused; `self` is this command, over a Unix socket
    #[arg(long, value_name = "PID[@TICKS]|self", value_parser = task, allow_negative_numbers = true)]
    pub task: Option<Task>,
    /// A cgroup by its path, as after `0::` in /proc/PID/cgroup, or absolute under the cgroup2 mount
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// A cgroup by its id, the inode number of its directory
    #[arg(long, value_name = "ID", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
    pub cgroup_id: Option<u64>,
    /// An owner by the id that the server gave it: exact and fast
    #[arg(long, value_name = "ID", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
    pub owner_id: Option<u64>,
    /// A simulated owner
    #[arg(long, value_name = "ID", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
    pub simulated: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Caller,
    Pid(i32),
    PidAt(i32, u64),
}

impl From<Task> for Owner {
    fn from(task: Task) -> Self {
        match task {
            Task::Caller => Owner::this_process(),
            Task::Pid(pid) => Owner::task(pid),
            Task::PidAt(pid, start_time_ticks) => Owner::task_at(pid, start_time_ticks),
        }
    }
}

impl OwnerArgs {
    /// The owner that was named, None for none.
    pub fn owner(self) -> Option<Owner> {
        let task = self.task.map(Owner::from);
        task.or(self.cgroup.map(Owner::cgroup))
            .or(self.cgroup_id.map(Owner::cgroup_id))
            .or(self.owner_id.map(Owner::id))
            .or(self.simulated.map(Owner::simulated))
    }
}

#[derive(Debug, Subcommand)]
pub enum OwnerCommand {
    /// Show who an owner is: identity, state, storage, worker
    ///
    /// Also shows a task or cgroup that has no value yet, with owner_id 0.
    #[command(
        override_usage = "holdfast owner show [OPTIONS] <PID|--task PID|--cgroup PATH|...>",
        after_help = "\
Examples:
  holdfast owner show 4711                       # the same as --task 4711
  holdfast owner show --cgroup /system.slice
  holdfast owner show --owner-id 17
  holdfast owner show --simulated 7 --kind task"
    )]
    Show(OwnerShowArgs),
    /// List the owners that the server watches
    #[command(after_help = "\
Examples:
  holdfast owner list
  holdfast owner list --kind cgroup -o json")]
    List {
        /// Only the owners of this kind
        #[arg(long)]
        kind: Option<Kind>,
    },
    /// Create simulated owners, for load tests (needs holdfastd --allow-simulated-owners)
    #[command(after_help = "\
Examples:
  holdfast owner create-simulated --kind task --count 1000  # ids 0 to 999
  holdfast owner create-simulated --kind cgroup --first 7 --count 1

Prints: created N")]
    CreateSimulated(SimulatedArgs),
    /// End simulated owners, with all their values
    #[command(after_help = "\
Examples:
  holdfast owner destroy-simulated --kind task --count 1000  # ids 0 to 999
  holdfast owner destroy-simulated --kind cgroup --first 7 --count 1

Prints: destroyed N")]
    DestroySimulated(SimulatedArgs),
}

#[derive(Args, Debug)]
pub struct OwnerShowArgs {
    /// A process or thread, as with --task
    #[arg(value_name = "PID", value_parser = task, allow_negative_numbers = true, group = "OwnerArgs")]
    pub pid: Option<Task>,
    /// The kind of a simulated owner
    #[arg(long)]
    pub kind: Option<Kind>,
    #[command(flatten)]
    pub owner: OwnerArgs,
}

#[derive(Args, Debug)]
pub struct SimulatedArgs {
    /// The kind of maps they can have values in
    #[arg(long)]
    pub kind: Kind,
    /// The first id
    #[arg(long, value_name = "ID", default_value = "0", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
    pub first: u64,
    /// How many: ids FIRST, FIRST + 1 and so on
    #[arg(long, value_name = "N", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
    pub count: u64,
}

/// A task as it is typed: PID, PID@TICKS or `self`.
pub fn task(text: &str) -> Result<Task, String> {
    let pid = |pid: &str| pid.parse().ok().filter(|pid| *pid > 0);
    let task = match text.split_once('@') {
        None if text == "self" => Some(Task::Caller),
        None => pid(text).map(Task::Pid),
        Some((before, ticks)) => pid(before).zip(ticks.parse().ok()).map(|(pid, ticks)| Task::PidAt(pid, ticks)),
    };
    task.ok_or_else(|| "expected a pid, 1 or more; a pid and its start time, as in 4711@123456; or `self`".to_owned())
}
