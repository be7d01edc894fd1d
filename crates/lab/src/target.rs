//! The server that is looked at, and the calls to it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::OwnerRef;
use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use holdfast_proto::v1::map_service_client::MapServiceClient;
use holdfast_proto::v1::owner_service_client::OwnerServiceClient;
use holdfast_proto::v1::program_service_client::ProgramServiceClient;
use holdfast_proto::v1::storage_service_client::StorageServiceClient;
use holdfast_proto::v1::{
    DeleteRequest, GetInfoRequest, GetInfoResponse, GetRequest, GetResponse, UpdateRequest, UpdateResponse,
};
use tonic::transport::{Channel, Endpoint};

use crate::failed::{Answer, Refused};

/// How a server guards against recursion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// By the locks alone.
    RqSpinLock,
    /// By a counter of each processor, as Linux did before.
    PerCpuCounter,
}

impl Guard {
    /// Both.
    pub const ALL: [Guard; 2] = [Guard::RqSpinLock, Guard::PerCpuCounter];

    /// As `--guard` takes it, and as the server tells it.
    pub fn name(self) -> &'static str {
        match self {
            Guard::RqSpinLock => "rqspinlock",
            Guard::PerCpuCounter => "percpu-counter",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Guard {
    type Err = String;

    fn from_str(name: &str) -> Result<Guard, String> {
        let found = Guard::ALL.into_iter().find(|guard| guard.name() == name);
        found.ok_or_else(|| format!("{name:?} is no guard: expected rqspinlock or percpu-counter"))
    }
}

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// This cannot lead anywhere.
    #[error("{endpoint} is no address of a server: {problem}")]
    Address {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody answers there, or not as a server does.
    #[error("cannot ask {endpoint} what it is: {refused}")]
    Silent {
        /// Where.
        endpoint: String,
        /// What came instead.
        refused: Refused,
    },
    /// It is a newer one, with another guard.
    #[error("the server at {endpoint} has another guard: {problem}")]
    Guard {
        /// Where.
        endpoint: String,
        /// Which.
        problem: String,
    },
}

/// A server, and what it says of itself.
#[derive(Clone, Debug)]
pub struct Target {
    channel: Channel,
    info: GetInfoResponse,
    guard: Guard,
    alone: bool,
}

impl Target {
    /// Connects to the server at `http://HOST:PORT` or `unix:///PATH`. No call may take longer than `timeout`.
    pub async fn connect(endpoint: &str, timeout: Duration) -> Result<Target, ConnectError> {
        let named = || endpoint.to_owned();
        let address = Endpoint::from_shared(named())
            .map_err(|error| ConnectError::Address { endpoint: named(), problem: error.to_string() })?;
        let channel = address.connect_timeout(timeout).timeout(timeout).connect_lazy();
        let asked = AdminServiceClient::new(channel.clone()).get_info(GetInfoRequest {}).await;
        let info = asked.map_err(|status| ConnectError::Silent { endpoint: named(), refused: status.into() })?;
        let info = info.into_inner();
        let guard = info.guard.parse().map_err(|problem| ConnectError::Guard { endpoint: named(), problem })?;
        Ok(Target { channel, info, guard, alone: false })
    }

    /// Nobody else uses this server: what it counts is ours.
    pub(crate) fn alone(self) -> Target {
        Target { alone: true, ..self }
    }

    /// The same server, judged as if it had this guard. Where it has not, what depends on the guard fails: so it is seen that it can.
    pub fn judged_as(self, guard: Guard) -> Target {
        Target { guard, ..self }
    }

    /// Its guard.
    pub fn guard(&self) -> Guard {
        self.guard
    }

    /// What it says of itself.
    pub fn info(&self) -> &GetInfoResponse {
        &self.info
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// The workers of that processor which has the most of them: they share a counter.
    pub(crate) fn crowd(&self) -> Vec<u32> {
        let mut by_processor = BTreeMap::<_, Vec<_>>::new();
        for worker in &self.info.workers {
            by_processor.entry(worker.processor).or_default().push(worker.index);
        }
        by_processor.into_values().max_by_key(Vec::len).unwrap_or_default()
    }

    pub(crate) fn maps(&self) -> MapServiceClient<Channel> {
        MapServiceClient::new(self.channel.clone())
    }

    pub(crate) fn storage(&self) -> StorageServiceClient<Channel> {
        StorageServiceClient::new(self.channel.clone())
    }

    pub(crate) fn owners(&self) -> OwnerServiceClient<Channel> {
        OwnerServiceClient::new(self.channel.clone())
    }

    pub(crate) fn programs(&self) -> ProgramServiceClient<Channel> {
        ProgramServiceClient::new(self.channel.clone())
    }

    pub(crate) fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }

    // --- Values, of owners by their ids ---

    pub(crate) async fn update(&self, map: &str, owner: u64, value: u64) -> Answer<UpdateResponse> {
        self.send(UpdateRequest { value: bytes(value), ..write(map, owner) }).await
    }

    pub(crate) async fn send(&self, request: UpdateRequest) -> Answer<UpdateResponse> {
        Ok(self.storage().update(request).await?.into_inner())
    }

    pub(crate) async fn get(&self, map: &str, owner: u64) -> Answer<GetResponse> {
        Ok(self.storage().get(read(map, owner)).await?.into_inner())
    }

    pub(crate) async fn get_or_create(&self, map: &str, owner: u64, initial: Bytes) -> Answer<GetResponse> {
        let request = GetRequest { create_if_missing: true, initial_value: Some(initial), ..read(map, owner) };
        Ok(self.storage().get(request).await?.into_inner())
    }

    pub(crate) async fn delete(&self, map: &str, owner: u64) -> Answer<()> {
        let owner = Some(OwnerRef::OwnerId(owner).into());
        let request = DeleteRequest { map: map.to_owned(), owner, ..DeleteRequest::default() };
        self.storage().delete(request).await?;
        Ok(())
    }
}

pub(crate) fn write(map: &str, owner: u64) -> UpdateRequest {
    let owner = Some(OwnerRef::OwnerId(owner).into());
    UpdateRequest { map: map.to_owned(), owner, ..UpdateRequest::default() }
}

fn read(map: &str, owner: u64) -> GetRequest {
    let owner = Some(OwnerRef::OwnerId(owner).into());
    GetRequest { map: map.to_owned(), owner, ..GetRequest::default() }
}

pub(crate) fn bytes(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_le_bytes())
}

/// The number in the first field of a value.
pub(crate) fn number(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}
