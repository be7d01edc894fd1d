//! The Holdfast gRPC API: protobuf sources, generated bindings, descriptor set.
#![forbid(unsafe_code)]

/// The generated messages, clients and servers of package `holdfast.v1`.
#[allow(missing_docs, clippy::large_enum_variant)]
pub mod v1 {
    tonic::include_proto!("holdfast.v1");
}

/// The compiled protobuf files and all that they import, with their comments: a
/// serialized `google.protobuf.FileDescriptorSet`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("holdfast");
