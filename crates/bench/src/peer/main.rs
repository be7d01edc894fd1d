//! The servers that `bench service` measures `holdfastd` beside. They speak the same API, and answer every call with a constant: what is left is
//! what gRPC itself costs.
//!
//! It prints where it serves as `holdfastd` does, and ends when its stdin is closed.

#![forbid(unsafe_code)]

mod constant;

use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::process::exit;
use std::sync::Arc;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use holdfast_proto::v1::storage_service_server::StorageServiceServer;
use holdfastd::calls::Calls;
use holdfastd::transport::{Config, Connections, Endpoint, IoThreads, Listener};
use mimalloc::MiMalloc;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use self::constant::Constant;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// As many as `holdfastd` has by default.
const THREADS: usize = 2;
/// Likewise.
const MESSAGE: usize = 4 << 20;
/// More than are opened.
const CONNECTIONS: usize = 1 << 16;

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
    /// That of holdfastd
    Holdfast,
}

fn main() -> Result<()> {
    let Cli { transport, value } = Cli::parse();
    // As holdfastd.
    rustix::thread::disable_transparent_huge_pages(true)?;
    let runtime = Builder::new_multi_thread().enable_all().worker_threads(THREADS).build()?;
    let constant = Constant::new(value);
    runtime.spawn(async move {
        let ended = match transport {
            Transport::Tonic => tonic(constant).await,
            Transport::Holdfast => holdfast(constant).await,
        };
        if let Err(why) = ended {
            eprintln!("bench-peer: {why:#}");
            exit(1);
        }
    });
    // Nobody writes there: it ends with whoever started this.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    exit(0)
}

async fn tonic(constant: Constant) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("serving grpc tcp://{}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(StorageServiceServer::new(constant)).serve_with_incoming(incoming).await?)
}

async fn holdfast(constant: Constant) -> Result<()> {
    let listener = Listener::bind(&Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into()))?;
    println!("serving grpc {}", listener.endpoint());
    let config = Config::default();
    let routes = Routes::new(StorageServiceServer::new(constant.clone()));
    let calls = Calls::new(constant, routes, MESSAGE, config.transfer_timeout);
    let connections = Connections::new(config, CONNECTIONS);
    connections.accept(listener, calls, Arc::new(IoThreads::start(THREADS, std::future::pending)?));
    pending().await
}
