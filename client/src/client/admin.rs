//! Calls about the server itself.

use holdfast_proto::v1::{GetInfoRequest, GetStatsRequest};

use super::{Client, rpc};
use crate::{Error, GetInfoResponse, GetStatsResponse};

impl Client {
    /// Tells what the server is and how it is set up. A new `instance_id` means that it has restarted, and that all
    /// maps, values and ids of before are gone.
    pub async fn info(&self) -> Result<GetInfoResponse, Error> {
        rpc!(self.admin().get_info(GetInfoRequest {})).await
    }

    /// Tells what the server has counted since it started.
    pub async fn stats(&self) -> Result<GetStatsResponse, Error> {
        rpc!(self.admin().get_stats(GetStatsRequest {})).await
    }
}
