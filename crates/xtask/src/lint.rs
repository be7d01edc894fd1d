//! What the toolchain itself can say about the source: formatting, clippy, rustdoc.

use anyhow::Result;

use crate::job::{Job, cargo};

pub fn fmt(job: &mut Job) -> Result<()> {
    job.run(cargo("fmt --all --check"))
}

pub fn clippy(job: &mut Job) -> Result<()> {
    job.run(cargo("clippy --workspace --all-targets -- -D warnings"))
}

pub fn doc(job: &mut Job) -> Result<()> {
    let mut doc = cargo("doc --workspace --no-deps");
    doc.env("RUSTDOCFLAGS", "-D warnings");
    job.run(doc)
}
