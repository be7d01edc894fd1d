//! What is called: requests made in advance, and how their answers are checked.

use anyhow::{Result, ensure};
use bytes::Bytes;
use holdfast_proto::v1::{GetRequest, GetResponse, UpdateRequest, UpdateResponse, get_request, update_request};
use prost::Message;

use super::client::{Answer, framed, unframed};

/// A call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Update,
}

impl Method {
    pub fn path(self) -> &'static str {
        match self {
            Method::Get => "/holdfast.v1.StorageService/Get",
            Method::Update => "/holdfast.v1.StorageService/Update",
        }
    }
}

/// One request, and what its answer must be.
#[derive(Clone)]
pub struct Item {
    pub method: Method,
    pub framed: Bytes,
    /// The value that a Get must answer.
    pub value: Bytes,
}

impl Item {
    pub fn get(map: &str, owner: u64, value: &Bytes) -> Item {
        let owner = Some(get_request::Owner::OwnerId(owner));
        let request = GetRequest { map: map.to_owned(), owner, ..GetRequest::default() };
        Item { method: Method::Get, framed: framed(&request), value: value.clone() }
    }

    pub fn update(map: &str, owner: u64, value: &Bytes) -> Item {
        let owner = Some(update_request::Owner::OwnerId(owner));
        let request = UpdateRequest { map: map.to_owned(), owner, value: value.clone(), ..UpdateRequest::default() };
        Item { method: Method::Update, framed: framed(&request), value: Bytes::new() }
    }

    /// Whether this is the answer; any other is a failure.
    pub fn check(&self, answer: Answer) -> Result<()> {
        ensure!(answer.code == 0, "{:?} was refused with status {}: {}", self.method, answer.code, answer.message);
        let body = unframed(answer.body)?;
        match self.method {
            Method::Get => ensure!(GetResponse::decode(body)?.value == self.value, "a Get answered a wrong value"),
            Method::Update => ensure!(UpdateResponse::decode(body)?.version > 0, "an Update answered no version"),
        }
        Ok(())
    }
}
