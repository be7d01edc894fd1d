//! The names of reasons as errors carry them.

use crate::v1::Reason;

const PREFIX: &str = "REASON_";

impl Reason {
    /// The name in `google.rpc.ErrorInfo.reason`: `MAP_FULL` for
    /// [`Reason::MapFull`]. The `.proto` file has it with a prefix, since the
    /// values of all enums of a package share one scope.
    pub fn code_name(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix(PREFIX).unwrap_or(name)
    }

    /// The reason with this [`code_name`](Self::code_name). None for a name this
    /// version of the API does not know, as a newer server may send; the status
    /// code still tells what to do then.
    pub fn from_code_name(name: &str) -> Option<Self> {
        Self::from_str_name(&format!("{PREFIX}{name}")).filter(|reason| *reason != Reason::Unspecified)
    }
}
