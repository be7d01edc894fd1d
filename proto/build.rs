//! Compiles the protobuf files with protox, a compiler in Rust, so that nobody
//! needs `protoc` installed, and generates the bindings from the result.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const FILES: [&str; 6] = [
    "holdfast/v1/types.proto",
    "holdfast/v1/map_service.proto",
    "holdfast/v1/storage_service.proto",
    "holdfast/v1/owner_service.proto",
    "holdfast/v1/program_service.proto",
    "holdfast/v1/admin_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=holdfast");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);

    // With imports, as reflection must be able to answer for every file.
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES.map(|file| root.join(file)))?;
    fs::write(out.join("holdfast.bin"), compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .build_client(cfg!(feature = "client"))
        .build_server(cfg!(feature = "server"))
        // Values go from the socket to the store without a copy in between.
        .bytes(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
