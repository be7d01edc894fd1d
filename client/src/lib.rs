//! Typed client of Holdfast: local storage maps for the tasks and cgroups of a Linux machine, over gRPC.
//!
//! A map gives every task, or every cgroup, one value of a fixed size, and the value goes with its owner.
//!
//! ```no_run
//! use holdfast::{Client, MapKind, NewMap, Owner};
//!
//! # async fn tour() -> Result<(), holdfast::Error> {
//! let client = Client::connect("http://127.0.0.1:7411").await?;
//! client.create_map(NewMap::new("tenant", MapKind::Task, 8).value_type("u64")).await?;
//!
//! let owner = Owner::task(4711);
//! let stored = client.update("tenant", &owner, &42_u64.to_le_bytes()).await?;
//! let got = client.get("tenant", &owner).await?;
//! assert_eq!((got.value.as_ref(), got.version), (&42_u64.to_le_bytes()[..], stored.version));
//! # Ok(())
//! # }
//! ```
//!
//! # Errors, and whether it has happened
//!
//! Every call ends in one of four ways besides success, and [`Error`] keeps them apart: the arguments cannot be
//! sent, the server cannot be reached, the server [refuses](Error::Refused) and says why (nothing has changed),
//! or nobody knows ([`Error::Unknown`]). `proto/README.md` has the table of reasons.
//!
//! # Deadlines and retries
//!
//! Every call has a deadline ([`Builder::timeout`]), which the server is told. Within it, a refusal that may pass
//! by itself is tried again, for reads and writes alike, since a refused write has not happened: see [`Retry`].
//! An unknown outcome is never retried.
//!
//! # Many values
//!
//! [`Client::batch_get`], [`Client::batch_update`] and [`Client::batch_delete`] are about many owners of one map by one
//! call. A batch is not atomic as a whole: each item is done or refused for itself, and the call succeeds also where
//! all of them were refused. [`Client::pipeline`] keeps many operations of any sort in flight.
//!
//! A [`Client`] is cheap to clone, and its clones share one HTTP/2 connection, which is made anew when it breaks.
#![forbid(unsafe_code)]

mod client;
mod endpoint;
mod error;
mod owner;
mod pages;
mod retry;
mod transport;

pub use client::{Answer, Answers, BatchExpect, Builder, Client, Expect, NewMap, Operations};
pub use endpoint::Endpoint;
pub use error::{Error, FieldViolation, Refusal};
/// Why a text is no [`Step`] of a [`Program`].
pub use holdfast_proto::StepError;
/// All messages of the API, as generated.
pub use holdfast_proto::v1;
pub use holdfast_proto::v1::{
    AttachedProgram, BatchDeleteResponse, BatchGetResponse, BatchUpdateResponse, CreateResponse, DeleteResponse,
    Element, GetInfoResponse, GetResponse, GetStatsResponse, HookPoint, MapKind, MapState, OnError,
    Owner as OwnerDetails, OwnerIdentity, OwnerState, Program, ProgramEvent, Reason, Step, StorageMap, UpdateMode,
    UpdateResponse,
};
pub use owner::{Owner, Owners};
pub use pages::Pages;
pub use retry::Retry;
pub use tonic::Code;
