//! The servers that `bench service` measures `holdfastd` beside. They speak the same API, and answer every call with a constant: what is left is
//! what gRPC itself costs.
//!
//! It prints where it serves as `holdfastd` does, and ends when its stdin is closed.

#![forbid(unsafe_code)]

mod constant;

use std::io;
use std::net::Ipv4Addr;

use clap::{Parser, ValueEnum};
use holdfast_proto::v1::storage_service_server::StorageServiceServer;
use mimalloc::MiMalloc;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use self::constant::Constant;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// As many as `holdfastd` has by default.
const THREADS: usize = 2;

#[derive(Parser)]
struct Cli {
    /// Which of them
    transport: Transport,

    /// Bytes of the value that every Get answers
    #[arg(long, default_value_t = 64)]
    value: usize,
}

/// What is between the socket and the handlers.
#[derive(Clone, Copy, ValueEnum)]
enum Transport {
    /// tonic's own server, as it is by default
    Tonic,
}

fn main() -> anyhow::Result<()> {
    let Cli { transport, value } = Cli::parse();
    let runtime = Builder::new_multi_thread().enable_all().worker_threads(THREADS).build()?;
    let service = StorageServiceServer::new(Constant::new(value));
    runtime.spawn(async move {
        match transport {
            Transport::Tonic => tonic(service).await,
        }
    });
    // Nobody writes there: it ends with whoever started this.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

async fn tonic(service: StorageServiceServer<Constant>) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("serving grpc tcp://{}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(service).serve_with_incoming(incoming).await?)
}
