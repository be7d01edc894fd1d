//! The Holdfast gRPC API: the protobuf files of package `holdfast.v1`, the
//! bindings generated from them, and their descriptors.
//!
//! The `.proto` files are the contract and carry the documentation of every
//! call, field and error; `proto/README.md` tells the conventions they share.
//! This crate adds only what the generator cannot know: [`OwnerRef`], one type
//! for the `owner` that each request has as a type of its own, the short names of
//! [`Reason`](v1::Reason) and [`HookPoint`](v1::HookPoint), the text form of a
//! program's [`Step`](v1::Step), and the items of a batch by their index
//! ([`BatchGetResponse::value`](v1::BatchGetResponse::value)).
//!
//! The descriptors of the error details (`google.rpc.ErrorInfo` and the others)
//! are not in [`FILE_DESCRIPTOR_SET`]: `tonic_types::pb::FILE_DESCRIPTOR_SET` has
//! them, and a server registers both with its reflection service.
#![forbid(unsafe_code)]

mod batch;
mod owner;
mod program;
mod reason;

pub use owner::OwnerRef;
pub use program::StepError;

/// The generated messages, clients and servers of package `holdfast.v1`.
///
/// With feature `client`: `map_service_client::MapServiceClient` and so on; with
/// feature `server`: the traits, such as `map_service_server::MapService`. Both
/// are on by default.
// The generator adds helpers without documentation to what the .proto files
// document in full, which a test checks.
#[allow(missing_docs)]
pub mod v1 {
    tonic::include_proto!("holdfast.v1");
}

/// The compiled protobuf files and all that they import, with their comments: a
/// serialized `google.protobuf.FileDescriptorSet`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("holdfast");

/// The TCP port that a server listens on and a client connects to by default.
pub const DEFAULT_PORT: u16 = 7411;

/// The `domain` of every `google.rpc.ErrorInfo` that a Holdfast server sends: the
/// sign that the error is the server's own answer.
pub const ERROR_DOMAIN: &str = "holdfast";
