//! Calls about values.

use bytes::Bytes;
use holdfast_proto::v1::{CreateRequest, DeleteRequest, GetRequest, ListElementsRequest, UpdateRequest};

use super::{Client, rpc};
use crate::{CreateResponse, DeleteResponse, Element, Error, GetResponse, Owner, Pages, UpdateMode, UpdateResponse};

/// What a write expects to find; refused otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The element has this version. Makes a repetition after [`Error::Unknown`] safe.
    pub version: Option<u64>,
    /// The map of the name is the one with this id.
    pub map_id: Option<u64>,
}

impl Expect {
    /// Expects the element to have this version.
    pub fn version(version: u64) -> Self {
        Self { version: Some(version), ..Self::default() }
    }
}

impl Client {
    /// Reads the owner's value.
    pub async fn get(&self, map: &str, owner: &Owner) -> Result<GetResponse, Error> {
        let request = GetRequest { map: map.to_owned(), owner: Some(owner.0.clone().into()), ..GetRequest::default() };
        rpc!(self.storage().get(request)).await
    }

    /// Reads the owner's value, and creates it where there is none: as `initial`, or as zeroes.
    pub async fn get_or_create(&self, map: &str, owner: &Owner, initial: Option<&[u8]>) -> Result<GetResponse, Error> {
        let request = GetRequest {
            map: map.to_owned(),
            owner: Some(owner.0.clone().into()),
            create_if_missing: true,
            initial_value: initial.map(Bytes::copy_from_slice),
        };
        rpc!(self.storage().get(request)).await
    }

    /// Creates the owner's value; refused if there is one.
    pub async fn create(&self, map: &str, owner: &Owner, value: &[u8]) -> Result<CreateResponse, Error> {
        let request = CreateRequest {
            map: map.to_owned(),
            owner: Some(owner.0.clone().into()),
            value: Bytes::copy_from_slice(value),
        };
        rpc!(self.storage().create(request)).await
    }

    /// Creates the owner's value or replaces it.
    pub async fn update(&self, map: &str, owner: &Owner, value: &[u8]) -> Result<UpdateResponse, Error> {
        self.update_if(map, owner, value, UpdateMode::Any, Expect::default()).await
    }

    /// Writes the owner's value if what is there is what `mode` and `expect` demand.
    pub async fn update_if(
        &self,
        map: &str,
        owner: &Owner,
        value: &[u8],
        mode: UpdateMode,
        expect: Expect,
    ) -> Result<UpdateResponse, Error> {
        let request = UpdateRequest {
            map: map.to_owned(),
            owner: Some(owner.0.clone().into()),
            value: Bytes::copy_from_slice(value),
            mode: mode.into(),
            expected_version: expect.version,
            expected_map_id: expect.map_id,
        };
        rpc!(self.storage().update(request)).await
    }

    /// Deletes the owner's value.
    pub async fn delete(&self, map: &str, owner: &Owner) -> Result<DeleteResponse, Error> {
        self.delete_if(map, owner, Expect::default()).await
    }

    /// Deletes the owner's value if it is what `expect` demands.
    pub async fn delete_if(&self, map: &str, owner: &Owner, expect: Expect) -> Result<DeleteResponse, Error> {
        let request = DeleteRequest {
            map: map.to_owned(),
            owner: Some(owner.0.clone().into()),
            expected_version: expect.version,
            expected_map_id: expect.map_id,
        };
        rpc!(self.storage().delete(request)).await
    }

    /// Lists the values of a map with their owners, in no order.
    pub fn list_elements(&self, map: &str) -> Pages<Element> {
        let (client, map) = (self.clone(), map.to_owned());
        Pages::new(move |page_size, page_token| {
            let (client, map) = (client.clone(), map.clone());
            async move {
                let request = ListElementsRequest { map, page_size, page_token };
                let answer = rpc!(client.storage().list_elements(request)).await?;
                Ok((answer.elements, answer.next_page_token))
            }
        })
    }
}
