//! How a command can fail: what is said, and the exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use holdfast::{Error, Reason, Refusal};

use crate::value::visible;

/// How a command can fail. Prints as whole lines, with what to do.
#[derive(Debug)]
pub enum Failure {
    Client(Error),
    /// The answer could not be written.
    Output(io::Error),
    /// Some items of a batch.
    Items {
        refused: usize,
        of: usize,
    },
    /// Something did not come out as it must.
    #[cfg(feature = "lab")]
    Lab(String),
}

impl Failure {
    pub fn usage(message: String) -> Self {
        Self::Client(Error::Usage(message))
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Client(Error::Refused(_)) | Self::Items { .. } => 1,
            #[cfg(feature = "lab")]
            Self::Lab(_) => 1,
            Self::Client(Error::Usage(_)) => 2,
            Self::Client(Error::Connect { .. }) => 3,
            Self::Client(Error::Unknown { .. }) | Self::Output(_) => 4,
        })
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Client(Error::Connect { .. }) => Some(
                "start a server with `holdfastd`, or say where one listens with --endpoint or HOLDFAST_ENDPOINT \
                 (http://HOST:PORT or unix:///PATH)"
                    .to_owned(),
            ),
            Self::Client(Error::Unknown { .. }) => Some(
                "nobody knows whether a write has happened: look before you repeat it (`holdfast get`, `holdfast map \
                 show`, `holdfast program list`); a read may be repeated; --timeout gives it more time"
                    .to_owned(),
            ),
            Self::Client(Error::Refused(refusal)) => what_to_do(refusal),
            Self::Items { .. } => Some("--failed shows them alone; all others are done".to_owned()),
            Self::Client(Error::Usage(_)) | Self::Output(_) => None,
            #[cfg(feature = "lab")]
            Self::Lab(_) => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => writeln!(f, "error: {error}")?,
            Self::Output(error) => writeln!(f, "error: cannot write the answer: {error}")?,
            Self::Items { refused, of } => writeln!(f, "error: {refused} of {of} items were refused")?,
            #[cfg(feature = "lab")]
            Self::Lab(what) => writeln!(f, "error: {what}")?,
        }
        match self.hint() {
            Some(hint) => writeln!(f, "hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What the user can do about a refusal, where the server's message leaves it open.
fn what_to_do(refusal: &Refusal) -> Option<String> {
    // Whatever a step of a program met: the caller did not ask for it.
    if let (Some(program), Some(step)) = (refusal.metadata.get("program"), refusal.metadata.get("step")) {
        let (program, step) = (visible(program), visible(step));
        let again = refusal.retry_after.map_or("", |_| "try again a little later; ");
        return Some(format!(
            "{again}the program {program} makes calls fail for what its step {step} meets: `holdfast program list --steps` shows \
             it, `holdfast program detach {program}` ends it"
        ));
    }
    let hint = match refusal.reason {
        Reason::LockTimeout | Reason::Overloaded => "the server is busy: try again a little later",
        Reason::StorageBusy => "try again; a server with `--guard rqspinlock` refuses only true recursion",
        Reason::ShuttingDown => "the server is going down: try again when it is back (its values will be gone)",
        Reason::RequestDeadline => "give it more time with --timeout",
        Reason::MapFull => "delete values, or create a map with a larger --max-elements",
        Reason::Quota => {
            "`holdfast owner show` and `holdfast admin stats` tell who has how many bytes; delete values, or free a map"
        }
        Reason::OwnerLimit => "`holdfast admin info` shows the limit; end some owners, or raise it at the server",
        Reason::ProgramLimit => "detach a program: `holdfast program list`, `holdfast program detach NAME`",
        Reason::ProgramExists => "`holdfast program list` shows it, `holdfast program detach NAME` ends it",
        Reason::ProgramNotFound => "`holdfast program list` shows the programs",
        Reason::InvalidProgram => "`holdfast program attach --help` tells what a program may have",
        Reason::LabStepsOff => "start the server with `holdfastd --allow-lab-steps`, or leave out `hold` and `meet`",
        Reason::LockDeadlockAbba => "try again: whoever it met goes on meanwhile",
        Reason::LockDeadlockAa | Reason::LockNesting | Reason::ProgramDepth | Reason::ProgramBudget => {
            "the programs do it, and will again: `holdfast program events` tells which, `holdfast program detach NAME` ends one"
        }
        Reason::MapLimit => "free a map: `holdfast map list`, `holdfast map free NAME`",
        Reason::ElementExists => "`holdfast update` replaces it, `holdfast get` shows it",
        Reason::MapExists => "`holdfast map show NAME` shows it, `holdfast map free NAME` frees it",
        Reason::MapNotFound => "`holdfast map list` shows the maps, `holdfast map create` makes one",
        Reason::OwnerNotFound => {
            "a pid counts in the server's pid namespace, a cgroup's path in its cgroup namespace; `holdfast owner \
             list` shows whom the server knows by an owner id"
        }
        Reason::OwnerExited => "what runs in its place is another owner, without values yet: `holdfast create`",
        Reason::ElementNotFound => "`holdfast create` or `holdfast get --create` makes one",
        Reason::VersionMismatch => "somebody wrote meanwhile: `holdfast get -v` shows the value and its version now",
        Reason::MapIdMismatch => "the map was freed and created again: `holdfast map show NAME`",
        Reason::MapFreeing => "`holdfast map show NAME` tells when it is gone",
        Reason::InvalidValue => "`holdfast map show NAME` tells the value_size and the value_type",
        Reason::InvalidPageToken => "the map or the server is not the same any more: list again",
        Reason::SimulatedOwnersOff => "start the server with `holdfastd --allow-simulated-owners`",
        Reason::Internal => "this is a bug of the server; its log has more",
        // The message says it all.
        Reason::Unspecified
        | Reason::MessageTooLarge
        | Reason::InvalidArgument
        | Reason::InvalidMapKind
        | Reason::InvalidName
        | Reason::InvalidOwner
        | Reason::InvalidOwnerKind
        | Reason::InvalidValueSize
        | Reason::InvalidMode
        | Reason::InvalidPageSize
        | Reason::InvalidMessage
        | Reason::PermissionDenied => return None,
    };
    let incident = refusal.metadata.get("incident").filter(|incident| !refusal.message.contains(*incident));
    Some(match incident {
        Some(incident) => format!("{hint} (incident {incident})"),
        None => hint.to_owned(),
    })
}
