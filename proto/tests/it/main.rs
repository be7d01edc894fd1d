//! What the bindings cannot say: that the API is exactly what it is meant to be,
//! documented in full, and that README.md tells the same.

mod bindings;
mod descriptors;
mod readme;

use prost_reflect::DescriptorPool;

/// The descriptor set as a client sees it through reflection.
fn pool() -> DescriptorPool {
    DescriptorPool::decode(holdfast_proto::FILE_DESCRIPTOR_SET).expect("the descriptor set is complete and valid")
}

/// The comment that stands above the item at `path` of a file.
fn comment(file: &prost_reflect::FileDescriptor, path: &[i32]) -> Option<String> {
    let info = file.file_descriptor_proto().source_code_info.as_ref()?;
    let location = info.location.iter().find(|location| location.path == path)?;
    let text = location.leading_comments().trim();
    (!text.is_empty()).then(|| text.to_owned())
}
