//! What the calls answer where nothing recurs.

use holdfast_proto::v1::{CreateMapRequest, MapKind, Reason, UpdateMode, UpdateRequest};

use super::findings::{Checked, Figure, Findings};
use crate::failed::{Answer, ending};
use crate::target::{bytes, write};
use crate::world::World;

pub(super) async fn crud(world: &World<'_>) -> Checked {
    let target = world.target;
    let map = world.map("values").await?;
    let owner = world.owners(1).await?[0];
    let put = async |mode: UpdateMode, value: u64| {
        let request = UpdateRequest { mode: mode.into(), value: bytes(value), ..write(&map, owner.id) };
        target.send(request).await
    };
    let (exists, absent) = (Reason::ElementExists.code_name(), Reason::ElementNotFound.code_name());
    let mut findings = Findings::default();
    let mut is = |what: &str, seen: String, expected: &str| findings.is(what, seen, expected);
    is("EXIST", ending(&put(UpdateMode::Exist, 1).await), absent);
    is("NOEXIST", ending(&put(UpdateMode::Noexist, 1).await), "ok");
    is("NOEXIST again", ending(&put(UpdateMode::Noexist, 2).await), exists);
    is("value", value(world.look(&map, owner).await?), "1");
    is("EXIST", ending(&put(UpdateMode::Exist, 3).await), "ok");
    is("value", value(world.look(&map, owner).await?), "3");
    is("ANY", ending(&put(UpdateMode::Any, 4).await), "ok");
    is("value", value(world.look(&map, owner).await?), "4");
    is("delete", ending(&target.delete(&map, owner.id).await), "ok");
    is("get", ending(&target.get(&map, owner.id).await), absent);
    is("delete again", ending(&target.delete(&map, owner.id).await), absent);
    let short = UpdateRequest { value: bytes(1).slice(..7), ..write(&map, owner.id) };
    is("a short value", ending(&target.send(short).await), Reason::InvalidValue.code_name());
    let kind = MapKind::Task.into();
    let good = CreateMapRequest { name: format!("{map}-2"), kind, value_size: 8, ..CreateMapRequest::default() };
    for (what, request, reason) in [
        ("no size", CreateMapRequest { value_size: 0, ..good.clone() }, Reason::InvalidValueSize),
        ("no kind", CreateMapRequest { kind: 0, ..good.clone() }, Reason::InvalidMapKind),
        ("no name", CreateMapRequest { name: String::new(), ..good.clone() }, Reason::InvalidName),
        ("its name", CreateMapRequest { name: map.clone(), ..good }, Reason::MapExists),
    ] {
        let created: Answer<u64> = world.create_map(request).await;
        is(&format!("a map with {what}"), ending(&created), reason.code_name());
    }
    // A word each, if they are all as they must be.
    findings
        .checked()
        .map(|figures| vec![Figure { name: "answers".to_owned(), measure: (figures.len() as u64).into() }])
}

fn value(seen: Option<u64>) -> String {
    seen.map_or_else(|| "none".to_owned(), |value| value.to_string())
}
