//! The calls of our services as their descriptors tell them, so that a test of all calls is one of the next one, too.

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor};

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

/// The words in the documentation of a call: of its service, itself, and the fields of its request.
pub fn documentation(method: &MethodDescriptor) -> BTreeSet<String> {
    let service = method.parent_service();
    let mut text = comment(&service.parent_file(), service.path());
    text += &comment(&service.parent_file(), method.path());
    text += &comments_of(&method.input());
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned).collect()
}

fn comments_of(message: &MessageDescriptor) -> String {
    let mut text = comment(&message.parent_file(), message.path());
    for field in message.fields() {
        text += &comment(&message.parent_file(), field.path());
        match field.kind() {
            Kind::Message(message) => text += &comments_of(&message),
            Kind::Enum(choice) => {
                choice.values().for_each(|value| text += &comment(&choice.parent_file(), value.path()));
            }
            _ => {}
        }
    }
    text
}

fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref().unwrap();
    let location = info.location.iter().find(|location| location.path == path);
    location.map(|location| location.leading_comments().to_owned()).unwrap_or_default()
}
