//! The columns of a batch, read by index.

use crate::v1::{BatchDeleteResponse, BatchGetResponse, BatchUpdateResponse, Reason};

/// A reason that this version of the API does not know is told as [`Reason::Unspecified`], and is a refusal all the same.
fn status(statuses: &[i32], index: usize) -> Result<(), Reason> {
    match statuses.get(index) {
        None | Some(0) => Ok(()),
        Some(number) => Err(Reason::try_from(*number).unwrap_or_default()),
    }
}

macro_rules! status {
    ($($response:ident),+) => {$(
        impl $response {
            /// What came of an item. Done also where there is no such item.
            pub fn status(&self, index: usize) -> Result<(), Reason> {
                status(&self.statuses, index)
            }
        }
    )+};
}

status!(BatchGetResponse, BatchUpdateResponse, BatchDeleteResponse);

impl BatchGetResponse {
    /// An item's value, or why there is none.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn value(&self, index: usize) -> Result<&[u8], Reason> {
        let size = self.value_size as usize;
        self.status(index)?;
        Ok(&self.values[index * size..][..size])
    }
}
