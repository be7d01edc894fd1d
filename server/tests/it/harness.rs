//! A server to test, in this process or as the real binary, and clients for it.

use std::future::Future;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use engine::Engine;
use holdfast_proto::OwnerRef;
use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use holdfast_proto::v1::map_service_client::MapServiceClient;
use holdfast_proto::v1::owner_service_client::OwnerServiceClient;
use holdfast_proto::v1::program_service_client::ProgramServiceClient;
use holdfast_proto::v1::storage_service_client::StorageServiceClient;
use holdfast_proto::v1::{
    CgroupRef, CreateMapRequest, CreateSimulatedOwnersRequest, DeleteRequest, DeleteResponse, Element, FreeMapRequest,
    GetMapRequest, GetOwnerRequest, GetRequest, GetResponse, GetStatsRequest, GetStatsResponse, ListElementsRequest,
    MapKind, Owner, StorageMap, TaskRef, UpdateRequest, UpdateResponse, cgroup_ref,
};
use holdfastd::app::{App, Serving};
use holdfastd::config::{Config, Workers};
use holdfastd::transport::Endpoint;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A future that has to be done in time.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Asks again and again until the answer is there.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let polling = async {
        let mut pause = tokio::time::interval(Duration::from_millis(1));
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            pause.tick().await;
        }
    };
    soon(what, polling).await
}

/// What such a file of `/proc` tells by this name.
pub fn status(file: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
    text.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// A configuration for tests: a free port, simulated owners, two workers, a short end.
pub fn config() -> Config {
    let mut config = Config { endpoints: vec![loopback()], ..Config::default() };
    config.workers = Workers { cpus: None, per_cpu: 1, ..config.workers };
    config.engine.owners.simulated = true;
    config.drain.notice = Duration::ZERO;
    config.drain.timeout = Duration::from_secs(2);
    config
}

pub fn loopback() -> Endpoint {
    Endpoint::Tcp("127.0.0.1:0".parse().unwrap())
}

/// A server in this process.
pub struct Server {
    pub endpoints: Vec<Endpoint>,
    pub engine: Engine,
    serving: Option<Serving>,
    channel: Channel,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        let app = App::build(config).await.unwrap();
        let endpoints: Vec<_> = app.endpoints().cloned().collect();
        let engine = app.engine().clone();
        let serving = Some(app.serve());
        let channel = connect(&endpoints[0]).await;
        Self { endpoints, engine, serving, channel }
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub fn tcp(&self) -> std::net::SocketAddr {
        let tcp = self.endpoints.iter().find_map(|endpoint| match endpoint {
            Endpoint::Tcp(address) => Some(*address),
            Endpoint::Unix(_) => None,
        });
        tcp.expect("a TCP listener")
    }

    /// Calls that have come and are not answered.
    pub fn in_flight(&self) -> usize {
        self.serving.as_ref().map_or(0, Serving::in_flight)
    }

    /// Begins to end it, in the background.
    pub fn drain(&mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(self.serving.take().expect("drained once").drain())
    }

    pub fn origin(&self) -> http::Uri {
        format!("http://{}", self.tcp()).parse().unwrap()
    }

    pub fn api(&self) -> Api {
        Api::new(self.channel())
    }
}

pub async fn connect(endpoint: &Endpoint) -> Channel {
    let uri = match endpoint {
        Endpoint::Tcp(address) => format!("http://{address}"),
        Endpoint::Unix(path) => format!("unix://{}", path.display()),
    };
    soon("a connection", tonic::transport::Endpoint::try_from(uri).unwrap().connect()).await.unwrap()
}

/// A client that leaves `grpc-timeout` to the server; tonic's own gives up by itself at the same time.
pub type PatientClient = legacy::Client<HttpConnector, Body>;

pub fn patient() -> PatientClient {
    legacy::Client::builder(TokioExecutor::new()).http2_only(true).timer(TokioTimer::new()).build(HttpConnector::new())
}

/// A request whose caller waits for so long.
pub fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Short ways to say what most tests say.
#[derive(Clone)]
pub struct Api {
    pub maps: MapServiceClient<Channel>,
    pub storage: StorageServiceClient<Channel>,
    pub owners: OwnerServiceClient<Channel>,
    pub programs: ProgramServiceClient<Channel>,
    pub admin: AdminServiceClient<Channel>,
}

impl Api {
    pub fn new(channel: Channel) -> Self {
        Self {
            maps: MapServiceClient::new(channel.clone()),
            storage: StorageServiceClient::new(channel.clone()),
            owners: OwnerServiceClient::new(channel.clone()),
            programs: ProgramServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel),
        }
    }

    pub async fn create_map(&mut self, request: CreateMapRequest) -> u64 {
        self.maps.create_map(request).await.unwrap().into_inner().map_id
    }

    /// A map of tasks with values of eight bytes.
    pub async fn task_map(&mut self, name: &str) -> u64 {
        self.create_map(map_of(name, MapKind::Task)).await
    }

    pub async fn map(&mut self, name: &str) -> Result<StorageMap, Status> {
        let answer = self.maps.get_map(GetMapRequest { name: name.to_owned() }).await?;
        Ok(answer.into_inner().map.expect("an answer has a map"))
    }

    pub async fn free(&mut self, name: &str) -> Result<u64, Status> {
        let request = FreeMapRequest { name: name.to_owned(), expected_map_id: None };
        Ok(self.maps.free_map(request).await?.into_inner().freed_elements)
    }

    pub async fn simulate(&mut self, kind: MapKind, first_id: u64, count: u64) -> u64 {
        let request = CreateSimulatedOwnersRequest { kind: kind.into(), first_id, count };
        self.owners.create_simulated_owners(request).await.unwrap().into_inner().created
    }

    pub async fn update(&mut self, map: &str, owner: OwnerRef, value: u64) -> Result<UpdateResponse, Status> {
        Ok(self.storage.update(put(map, owner, value)).await?.into_inner())
    }

    pub async fn get(&mut self, map: &str, owner: OwnerRef) -> Result<GetResponse, Status> {
        let request = GetRequest { map: map.to_owned(), owner: Some(owner.into()), ..GetRequest::default() };
        Ok(self.storage.get(request).await?.into_inner())
    }

    pub async fn delete(&mut self, map: &str, owner: OwnerRef) -> Result<DeleteResponse, Status> {
        let request = DeleteRequest { map: map.to_owned(), owner: Some(owner.into()), ..DeleteRequest::default() };
        Ok(self.storage.delete(request).await?.into_inner())
    }

    pub async fn owner(&mut self, owner: OwnerRef) -> Result<Owner, Status> {
        let request = GetOwnerRequest { owner: Some(owner.into()), kind: 0 };
        Ok(self.owners.get_owner(request).await?.into_inner().owner.expect("an answer has an owner"))
    }

    /// All elements of a map, page by page.
    pub async fn list(&mut self, map: &str, page_size: i32) -> Result<Vec<Element>, Status> {
        let mut elements = Vec::new();
        let mut request = ListElementsRequest { map: map.to_owned(), page_size, page_token: String::new() };
        loop {
            let page = self.storage.list_elements(request.clone()).await?.into_inner();
            elements.extend(page.elements);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(elements);
            }
        }
    }

    pub async fn stats(&mut self) -> GetStatsResponse {
        self.admin.get_stats(GetStatsRequest {}).await.unwrap().into_inner()
    }
}

pub fn map_of(name: &str, kind: MapKind) -> CreateMapRequest {
    CreateMapRequest { name: name.to_owned(), kind: kind.into(), value_size: 8, ..CreateMapRequest::default() }
}

pub fn put(map: &str, owner: OwnerRef, value: u64) -> UpdateRequest {
    UpdateRequest { map: map.to_owned(), owner: Some(owner.into()), value: bytes(value), ..UpdateRequest::default() }
}

pub fn bytes(value: u64) -> bytes::Bytes {
    value.to_le_bytes().to_vec().into()
}

pub fn simulated(id: u64) -> OwnerRef {
    OwnerRef::SimulatedId(id)
}

pub fn task(pid: i32) -> OwnerRef {
    OwnerRef::Task(TaskRef { pid, ..TaskRef::default() })
}

pub fn cgroup(path: &str) -> OwnerRef {
    OwnerRef::Cgroup(CgroupRef { r#ref: Some(cgroup_ref::Ref::Path(path.to_owned())) })
}

/// A configuration in which all mutations go through the workers' mailboxes, for tests that are about these.
pub fn by_workers(change: impl FnOnce(&mut Config)) -> impl FnOnce(&mut Config) {
    |config| {
        config.engine.inline_mutations = false;
        change(config);
    }
}

/// A closure that keeps a worker or a lock until the guard is dropped, and never longer than a test may take.
pub fn hold() -> (Hold, impl FnOnce() + Send + 'static) {
    let (release, released) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let body = move || {
        let _ = begin.send(());
        // Ends when the sender is dropped.
        let _ = released.recv_timeout(PATIENCE);
    };
    (Hold { begun, _release: release }, body)
}

pub struct Hold {
    begun: mpsc::Receiver<()>,
    _release: mpsc::Sender<()>,
}

impl Hold {
    /// Waits until the closure runs.
    pub fn wait(self) -> Self {
        self.begun.recv_timeout(PATIENCE).expect("the closure runs");
        self
    }
}

/// The real binary.
pub struct Process {
    child: Child,
    pub endpoints: Vec<Endpoint>,
    pub stderr: mpsc::Receiver<String>,
}

impl Process {
    /// One that serves on a free port.
    pub fn start(arguments: &[&str]) -> Self {
        Self::spawn(binary().args(["--listen", "127.0.0.1:0"]).args(arguments), 1)
    }

    /// Starts a command that ends up as `holdfastd`, and waits until it serves at so many endpoints.
    pub fn spawn(command: &mut Command, endpoints: usize) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = lines(child.stderr.take().unwrap());
        let stdout = lines(child.stdout.take().unwrap());
        let mut process = Self { child, endpoints: Vec::new(), stderr };
        while process.endpoints.len() < endpoints {
            match stdout.recv_timeout(PATIENCE) {
                Ok(line) => process.endpoints.push(endpoint(&line)),
                Err(_) => panic!("it does not serve: {:?}", process.stderr.try_iter().collect::<Vec<_>>()),
            }
        }
        process
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Bytes of it that are in memory.
    pub fn resident(&self) -> u64 {
        1024 * self.status("VmRSS").trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// What its file in `/proc` tells by this name.
    pub fn status(&self, name: &str) -> String {
        status(format!("/proc/{}/status", self.pid()).as_ref(), name)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Its exit code, if it ends in time.
    pub async fn ended(&mut self) -> Option<i32> {
        until("the process ends", async || self.child.try_wait().unwrap()).await.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, as it should be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn binary() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_holdfastd")))
}

/// What the developer has set does not count, nor the systemd that has started the tests.
pub fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command.env_remove("NOTIFY_SOCKET");
    command
}

fn endpoint(line: &str) -> Endpoint {
    let place = line.strip_prefix("serving grpc ").unwrap_or_else(|| panic!("an unexpected line: {line}"));
    match place.strip_prefix("unix://") {
        Some(path) => Endpoint::Unix(PathBuf::from(path)),
        None => Endpoint::Tcp(place.strip_prefix("tcp://").unwrap().parse().unwrap()),
    }
}

fn lines(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // Nobody listens any more: read on, so that the process is not held up.
            let _ = sender.send(line);
        }
    });
    receiver
}
