//! What is called: requests made in advance, and how their answers are checked.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use holdfast_proto::v1::{
    BatchGetRequest, BatchGetResponse, BatchUpdateRequest, BatchUpdateResponse, CreateRequest, CreateResponse,
    DeleteRequest, DeleteResponse, GetRequest, GetResponse, ListElementsRequest, ListElementsResponse, PipelineRequest,
    PipelineResponse, UpdateRequest, UpdateResponse, create_request, delete_request, get_request, pipeline_request,
    pipeline_response, update_request,
};
use prost::Message;

use super::client::{Answer, Connection, Head, framed, unframed};

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Create,
    Update,
    Delete,
    List,
    BatchGet,
    BatchUpdate,
    /// The conversation; its items are many operations each.
    Pipeline,
    EtcdRange,
    EtcdPut,
}

impl Method {
    /// In the order of the enum.
    const ALL: [Method; 10] = [
        Method::Get,
        Method::Create,
        Method::Update,
        Method::Delete,
        Method::List,
        Method::BatchGet,
        Method::BatchUpdate,
        Method::Pipeline,
        Method::EtcdRange,
        Method::EtcdPut,
    ];

    pub fn path(self) -> &'static str {
        match self {
            Method::Get => "/holdfast.v1.StorageService/Get",
            Method::Create => "/holdfast.v1.StorageService/Create",
            Method::Update => "/holdfast.v1.StorageService/Update",
            Method::Delete => "/holdfast.v1.StorageService/Delete",
            Method::List => "/holdfast.v1.StorageService/ListElements",
            Method::BatchGet => "/holdfast.v1.StorageService/BatchGet",
            Method::BatchUpdate => "/holdfast.v1.StorageService/BatchUpdate",
            Method::Pipeline => "/holdfast.v1.StorageService/Pipeline",
            Method::EtcdRange => "/etcdserverpb.KV/Range",
            Method::EtcdPut => "/etcdserverpb.KV/Put",
        }
    }
}

/// The heads of all calls on one connection.
pub struct Heads([Head; Method::ALL.len()]);

impl Heads {
    pub fn new(connection: &Connection) -> Self {
        Heads(Method::ALL.map(|method| connection.head(method.path())))
    }

    pub fn of(&self, method: Method) -> &Head {
        &self.0[method as usize]
    }
}

/// One request, and what its answer must be.
#[derive(Clone)]
pub struct Item {
    pub method: Method,
    pub framed: Bytes,
    expected: Expected,
}

#[derive(Clone)]
enum Expected {
    /// This value, or these, one behind the other.
    Value(Bytes),
    /// For each operation of a pipeline: this value, or that it was done.
    Each(Vec<Option<Bytes>>),
    /// So many elements.
    Elements(usize),
    /// An answer that says what was done.
    Done,
    /// A refusal: there is no such element.
    NotFound,
}

/// gRPC's number of it.
const NOT_FOUND: u32 = 5;

impl Item {
    fn new(method: Method, request: &impl Message, expected: Expected) -> Item {
        Item { method, framed: framed(request), expected }
    }

    pub fn get(map: &str, owner: u64, value: &Bytes) -> Item {
        Item::new(Method::Get, &get(map, owner), Expected::Value(value.clone()))
    }

    /// A Get of an owner that has no value there.
    pub fn miss(map: &str, owner: u64) -> Item {
        Item::new(Method::Get, &get(map, owner), Expected::NotFound)
    }

    pub fn create(map: &str, owner: u64, value: &Bytes) -> Item {
        let owner = Some(create_request::Owner::OwnerId(owner));
        let request = CreateRequest { map: map.to_owned(), owner, value: value.clone() };
        Item::new(Method::Create, &request, Expected::Done)
    }

    pub fn update(map: &str, owner: u64, value: &Bytes) -> Item {
        Item::new(Method::Update, &update(map, owner, value), Expected::Done)
    }

    pub fn delete(map: &str, owner: u64) -> Item {
        let owner = Some(delete_request::Owner::OwnerId(owner));
        let request = DeleteRequest { map: map.to_owned(), owner, ..DeleteRequest::default() };
        Item::new(Method::Delete, &request, Expected::Done)
    }

    /// The first page, which has so many elements.
    pub fn list(map: &str, page_size: i32, elements: usize) -> Item {
        let request = ListElementsRequest { map: map.to_owned(), page_size, page_token: String::new() };
        Item::new(Method::List, &request, Expected::Elements(elements))
    }

    pub fn batch_get(map: &str, owners: Vec<u64>, values: Bytes) -> Item {
        let request = BatchGetRequest { map: map.to_owned(), owner_ids: owners, ..BatchGetRequest::default() };
        Item::new(Method::BatchGet, &request, Expected::Value(values))
    }

    pub fn batch_update(map: &str, owners: Vec<u64>, values: Bytes) -> Item {
        let map = map.to_owned();
        let request = BatchUpdateRequest { map, owner_ids: owners, values, ..BatchUpdateRequest::default() };
        Item::new(Method::BatchUpdate, &request, Expected::Done)
    }

    /// Operations in one write, with their places as their numbers: Gets of these values or Updates to them.
    pub fn pipeline(map: &str, operations: &[(u64, Bytes)], gets: bool) -> Item {
        let mut bytes = BytesMut::new();
        for (id, (owner, value)) in operations.iter().enumerate() {
            let operation = match gets {
                true => pipeline_request::Operation::Get(get(map, *owner)),
                false => pipeline_request::Operation::Update(update(map, *owner, value)),
            };
            bytes.extend_from_slice(&framed(&PipelineRequest { id: id as u64, operation: Some(operation) }));
        }
        let values = operations.iter().map(|(_, value)| gets.then(|| value.clone())).collect();
        Item { method: Method::Pipeline, framed: bytes.freeze(), expected: Expected::Each(values) }
    }

    /// How many answers it gets.
    pub fn answers(&self) -> usize {
        if let Expected::Each(values) = &self.expected { values.len() } else { 1 }
    }

    /// Whether this is one of the answers of a pipeline.
    pub fn check_one(&self, answer: Bytes) -> Result<()> {
        use pipeline_response::Result as Answered;
        let PipelineResponse { id, result } = PipelineResponse::decode(answer)?;
        let Expected::Each(values) = &self.expected else { bail!("{:?} is no pipeline", self.method) };
        match (values.get(id as usize), result) {
            (Some(Some(value)), Some(Answered::Get(answer))) if answer.value == value => Ok(()),
            (Some(None), Some(Answered::Update(answer))) if answer.version > 0 => Ok(()),
            (_, Some(Answered::Error(why))) => bail!("an operation was refused with {}: {}", why.code, why.message),
            (_, result) => bail!("operation {id} got a wrong answer: {result:?}"),
        }
    }

    pub fn etcd_range(key: &str, value: &Bytes) -> Item {
        let request = etcd::RangeRequest { key: key.to_owned().into() };
        Item::new(Method::EtcdRange, &request, Expected::Value(value.clone()))
    }

    pub fn etcd_put(key: &str, value: &Bytes) -> Item {
        let request = etcd::PutRequest { key: key.to_owned().into(), value: value.clone() };
        Item::new(Method::EtcdPut, &request, Expected::Done)
    }

    /// Whether this is the answer; any other is a failure.
    pub fn check(&self, answer: Answer) -> Result<()> {
        let method = self.method;
        if matches!(self.expected, Expected::NotFound) {
            ensure!(answer.code == NOT_FOUND, "{method:?} ended with status {}, not {NOT_FOUND}", answer.code);
            return Ok(());
        }
        ensure!(answer.code == 0, "{method:?} was refused with status {}: {}", answer.code, answer.message);
        let body = unframed(answer.body)?;
        let right = match (method, &self.expected) {
            (Method::Get, Expected::Value(value)) => GetResponse::decode(body)?.value == value,
            (Method::List, Expected::Elements(count)) => ListElementsResponse::decode(body)?.elements.len() == *count,
            (Method::EtcdRange, Expected::Value(value)) => {
                etcd::RangeResponse::decode(body)?.kvs.first().is_some_and(|pair| pair.value == value)
            }
            (Method::Create, _) => CreateResponse::decode(body)?.version > 0,
            (Method::Update, _) => UpdateResponse::decode(body)?.version > 0,
            (Method::Delete, _) => DeleteResponse::decode(body)?.owner_id > 0,
            (Method::BatchGet, Expected::Value(values)) => {
                let answer = BatchGetResponse::decode(body)?;
                answer.failed == 0 && answer.values == values
            }
            (Method::BatchUpdate, _) => BatchUpdateResponse::decode(body)?.failed == 0,
            (Method::EtcdPut, _) => etcd::PutResponse::decode(body)?.header.is_some_and(|header| header.revision > 0),
            (Method::Get | Method::List | Method::BatchGet | Method::Pipeline | Method::EtcdRange, _) => false,
        };
        ensure!(right, "{method:?} gave a wrong answer");
        Ok(())
    }
}

fn get(map: &str, owner: u64) -> GetRequest {
    let owner = Some(get_request::Owner::OwnerId(owner));
    GetRequest { map: map.to_owned(), owner, ..GetRequest::default() }
}

fn update(map: &str, owner: u64, value: &Bytes) -> UpdateRequest {
    let owner = Some(update_request::Owner::OwnerId(owner));
    UpdateRequest { map: map.to_owned(), owner, value: value.clone(), ..UpdateRequest::default() }
}

/// Items that streams share out. Cloning gives another handle.
#[derive(Clone)]
pub struct Items {
    pub all: Arc<[Item]>,
    /// So many in a row belong together: one stream makes them all, in their order.
    pub unit: usize,
    /// What each of them reads or writes.
    pub elements: u64,
}

impl Items {
    /// Each for itself, of one element.
    pub fn single(items: impl IntoIterator<Item = Item>) -> Items {
        Items { all: items.into_iter().collect(), unit: 1, elements: 1 }
    }
}

/// What we need of etcd's API (etcd/api/etcdserverpb/rpc.proto).
pub mod etcd {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct RangeRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub key: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct RangeResponse {
        #[prost(message, repeated, tag = "2")]
        pub kvs: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct KeyValue {
        #[prost(bytes = "bytes", tag = "5")]
        pub value: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct PutRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub key: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub value: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct PutResponse {
        #[prost(message, optional, tag = "1")]
        pub header: Option<Header>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Header {
        #[prost(int64, tag = "3")]
        pub revision: i64,
    }
}
