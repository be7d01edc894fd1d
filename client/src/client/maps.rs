//! Calls about maps.

use holdfast_proto::v1::{CreateMapRequest, FreeMapRequest, GetMapRequest, ListMapsRequest};

use super::{Client, rpc};
use crate::{Error, MapKind, Pages, StorageMap};

/// A map to be created.
#[derive(Clone, Debug)]
#[must_use = "a map is created by Client::create_map"]
pub struct NewMap(CreateMapRequest);

impl NewMap {
    /// A map of this name for values of `value_size` bytes, as large as the server's default allows.
    pub fn new(name: impl Into<String>, kind: MapKind, value_size: u32) -> Self {
        Self(CreateMapRequest { name: name.into(), kind: kind.into(), value_size, ..CreateMapRequest::default() })
    }

    /// The most elements it may have.
    pub fn max_elements(mut self, elements: u64) -> Self {
        self.0.max_elements = elements;
        self
    }

    /// What the bytes of a value mean, as a name: `u64`, `utf8`, or your own. The server keeps it and gives it back;
    /// the command line prints values by it.
    pub fn value_type(mut self, name: impl Into<String>) -> Self {
        self.0.value_type = name.into();
        self
    }
}

impl Client {
    /// Creates a map, and returns its map id.
    pub async fn create_map(&self, map: NewMap) -> Result<u64, Error> {
        Ok(rpc!(self.maps().create_map(map.0)).await?.map_id)
    }

    /// Describes a map.
    pub async fn get_map(&self, name: &str) -> Result<StorageMap, Error> {
        let answer = rpc!(self.maps().get_map(GetMapRequest { name: name.to_owned() })).await?;
        answer.map.ok_or_else(|| Error::malformed(&self.endpoint, "map"))
    }

    /// Lists the maps, those that are being freed included.
    pub fn list_maps(&self) -> Pages<StorageMap> {
        let client = self.clone();
        Pages::new(move |page_size, page_token| {
            let client = client.clone();
            async move {
                let answer = rpc!(client.maps().list_maps(ListMapsRequest { page_size, page_token })).await?;
                Ok((answer.maps, answer.next_page_token))
            }
        })
    }

    /// Frees a map with all its elements, and returns how many it removed. With `expected_map_id` only that very map,
    /// not a later one of the same name.
    pub async fn free_map(&self, name: &str, expected_map_id: Option<u64>) -> Result<u64, Error> {
        let request = FreeMapRequest { name: name.to_owned(), expected_map_id };
        Ok(rpc!(self.maps().free_map(request)).await?.freed_elements)
    }
}
