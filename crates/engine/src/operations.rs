//! The operations on values, as they run on a pinned thread: for a request, or as a step of a program.

use std::sync::Arc;

use local_storage::{Context, Mode, Stopped, Value, Written};

use crate::error::Error;
use crate::maps::Map;
use crate::program::{Field, Runner};
use crate::types::Version;
use crate::worker::OwnerHandle;

impl Runner {
    pub(crate) fn update(
        &self,
        cx: &Context,
        map: &Arc<Map>,
        owner: &OwnerHandle,
        value: &[u8],
        mode: Mode,
        expected: Option<Version>,
    ) -> Result<Written, Error> {
        self.operate(map, owner, || {
            let written = map.core.update(cx, owner.attachment(), value, mode, expected);
            written.map_err(|error| self.scene(map, owner).update(error, expected))
        })
    }

    pub(crate) fn get_or_create(
        &self,
        cx: &Context,
        map: &Arc<Map>,
        owner: &OwnerHandle,
        initial: &[u8],
    ) -> Result<(Value, bool), Error> {
        self.operate(map, owner, || {
            let got = map.core.get_or_create(cx, owner.attachment(), initial);
            got.map_err(|error| self.scene(map, owner).update(error, None))
        })
    }

    /// The sum. The field was checked against the map.
    pub(crate) fn add(
        &self,
        cx: &Context,
        map: &Arc<Map>,
        owner: &OwnerHandle,
        field: Field,
        delta: u64,
    ) -> Result<u64, Error> {
        let field = local_storage::Field::new(field.offset, field.width);
        let field = field.ok_or_else(|| Error::Internal { problem: "a step adds to no field".to_owned() })?;
        self.operate(map, owner, || match map.core.add(cx, owner.attachment(), field, delta) {
            Ok((sum, _)) => Ok(sum),
            Err(error) => Err(self.scene(map, owner).update(error, None)),
        })
    }

    /// None where there is none.
    pub(crate) fn read(&self, cx: &Context, map: &Arc<Map>, owner: &OwnerHandle) -> Result<Option<Value>, Error> {
        self.operate(map, owner, || {
            map.core.get(cx, owner.attachment()).map_err(|Stopped| self.scene(map, owner).stop_reason())
        })
    }

    /// Refused where there is none.
    pub(crate) fn get(&self, cx: &Context, map: &Arc<Map>, owner: &OwnerHandle) -> Result<Value, Error> {
        self.read(cx, map, owner)?.ok_or_else(|| match local_storage::Owner::slot(owner.attachment()).is_dead() {
            true => Error::OwnerExited { owner: owner.id() },
            false if map.core.is_freeing() => Error::MapFreeing { name: map.spec.name.clone() },
            false => Error::ElementNotFound { map: map.spec.name.clone() },
        })
    }

    pub(crate) fn delete(
        &self,
        cx: &Context,
        map: &Arc<Map>,
        owner: &OwnerHandle,
        expected: Option<Version>,
    ) -> Result<Version, Error> {
        self.operate(map, owner, || {
            let deleted = map.core.delete(cx, owner.attachment(), expected);
            deleted.map_err(|error| self.scene(map, owner).delete(error, expected))
        })
    }
}
