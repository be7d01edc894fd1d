//! The calls of our services as their descriptors tell them, so that a test of all calls is one of the next one, too.

use prost_reflect::{DescriptorPool, MethodDescriptor};

pub fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(holdfast_proto::FILE_DESCRIPTOR_SET).unwrap();
    let services = pool.services().filter(|service| service.package_name() == "holdfast.v1");
    let methods: Vec<_> = services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    assert!(methods.len() >= 15, "the descriptor set is not whole: {methods:?}");
    methods
}

/// As a request names it.
pub fn path(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}
