//! The descriptor set: which calls there are, and that all is documented.

use crate::{comment, pool};

#[test]
fn the_services_have_exactly_these_calls() {
    let mut calls = Vec::new();
    for service in pool().services().filter(|service| service.package_name() == "holdfast.v1") {
        for call in service.methods() {
            let streams = (call.is_client_streaming(), call.is_server_streaming());
            let converses = call.name() == "Pipeline";
            assert_eq!(streams, (converses, converses), "{}", call.full_name());
            assert_eq!(call.input().name(), format!("{}Request", call.name()));
            assert_eq!(call.output().name(), format!("{}Response", call.name()));
            calls.push(format!("{}.{}", service.name(), call.name()));
        }
    }
    calls.sort();
    assert_eq!(
        calls,
        [
            "AdminService.GetInfo",
            "AdminService.GetStats",
            "MapService.CreateMap",
            "MapService.FreeMap",
            "MapService.GetMap",
            "MapService.ListMaps",
            "OwnerService.CreateSimulatedOwners",
            "OwnerService.DestroySimulatedOwners",
            "OwnerService.GetOwner",
            "OwnerService.ListOwners",
            "ProgramService.AttachProgram",
            "ProgramService.DetachProgram",
            "ProgramService.ListProgramEvents",
            "ProgramService.ListPrograms",
            "StorageService.BatchDelete",
            "StorageService.BatchGet",
            "StorageService.BatchUpdate",
            "StorageService.Create",
            "StorageService.Delete",
            "StorageService.Get",
            "StorageService.ListElements",
            "StorageService.Pipeline",
            "StorageService.Update",
        ]
    );
}

#[test]
fn everything_has_a_comment() {
    let pool = pool();
    let mut items = Vec::new();
    for service in pool.services() {
        items.push((service.parent_file(), service.path().to_vec(), service.full_name().to_owned()));
        for call in service.methods() {
            items.push((service.parent_file(), call.path().to_vec(), call.full_name().to_owned()));
        }
    }
    // The generator writes the entries of maps.
    for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
        items.push((message.parent_file(), message.path().to_vec(), message.full_name().to_owned()));
        for field in message.fields() {
            items.push((message.parent_file(), field.path().to_vec(), field.full_name().to_owned()));
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            items.push((message.parent_file(), oneof.path().to_vec(), oneof.full_name().to_owned()));
        }
    }
    for choice in pool.all_enums() {
        items.push((choice.parent_file(), choice.path().to_vec(), choice.full_name().to_owned()));
        for value in choice.values() {
            items.push((choice.parent_file(), value.path().to_vec(), value.full_name().to_owned()));
        }
    }

    items.retain(|(file, ..)| file.package_name() == "holdfast.v1");
    assert!(items.len() > 200, "found only {} items: the descriptor set is not whole", items.len());
    let bare: Vec<_> =
        items.iter().filter(|(file, path, _)| comment(file, path).is_none()).map(|(.., name)| name).collect();
    assert!(bare.is_empty(), "without a comment: {bare:#?}");
}

#[test]
fn a_request_names_its_owner_by_the_same_fields_everywhere() {
    let mut with_owner = Vec::new();
    for message in pool().all_messages() {
        let Some(owner) = message.oneofs().find(|oneof| oneof.name() == "owner") else {
            continue;
        };
        let names: Vec<_> = owner.fields().map(|field| field.name().to_owned()).collect();
        assert_eq!(names, ["task", "cgroup", "owner_id", "simulated_id"], "{}", message.full_name());
        with_owner.push(message.name().to_owned());
    }
    with_owner.sort();
    assert_eq!(
        with_owner,
        ["CreateRequest", "DeleteRequest", "GetOwnerRequest", "GetRequest", "OwnerRef", "UpdateRequest"]
    );
}
