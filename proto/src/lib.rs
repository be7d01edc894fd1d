//! The Holdfast gRPC API: protobuf sources, generated bindings, descriptor set.
