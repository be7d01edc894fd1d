//! The bindings: names of reasons, one type for owners, the form that tools type,
//! and values that are not copied.

use holdfast_proto::OwnerRef;
use holdfast_proto::v1::{self, OwnerRef as ProtoOwnerRef, cgroup_ref};
use holdfast_proto::v1::{
    CgroupRef, CreateRequest, DeleteRequest, GetOwnerRequest, GetRequest, Reason, TaskRef, UpdateRequest,
};
use prost::Message;
use prost::bytes::Bytes;
use prost_reflect::DynamicMessage;

use crate::pool;

#[test]
fn a_reason_is_found_again_by_its_code_name() {
    let reasons: Vec<_> = (1..1000).filter_map(|number| Reason::try_from(number).ok()).collect();
    assert_eq!(reasons.len() + 1, pool().get_enum_by_name("holdfast.v1.Reason").expect("is there").values().len());
    for reason in reasons {
        let name = reason.code_name();
        assert!(!name.contains("REASON"), "{name} keeps its prefix");
        assert_eq!(Reason::from_code_name(name), Some(reason));
    }
    assert_eq!(Reason::MapFull.code_name(), "MAP_FULL");
    for unknown in ["", "UNSPECIFIED", "REASON_MAP_FULL", "map_full", "OF_A_LATER_VERSION"] {
        assert_eq!(Reason::from_code_name(unknown), None, "{unknown:?}");
    }
}

#[test]
fn an_owner_survives_the_way_into_a_request_and_back() {
    let owners = [
        OwnerRef::Task(TaskRef { pid: 7, start_time_ticks: Some(11), self_: false }),
        OwnerRef::Cgroup(CgroupRef { r#ref: Some(cgroup_ref::Ref::Path("/a".to_owned())) }),
        OwnerRef::OwnerId(17),
        OwnerRef::SimulatedId(0),
    ];
    for owner in owners {
        macro_rules! check {
            ($($request:ident),+) => {$({
                let request = $request { owner: Some(owner.clone().into()), ..Default::default() };
                let wire = request.encode_to_vec();
                let decoded = $request::decode(wire.as_slice()).expect("decodes what was encoded");
                let back = decoded.owner.map(OwnerRef::from);
                assert_eq!(back, Some(owner.clone()), stringify!($request));
            })+};
        }
        check!(GetRequest, CreateRequest, UpdateRequest, DeleteRequest, GetOwnerRequest, ProtoOwnerRef);
    }
}

/// Reads JSON as grpcurl and ghz do, from the descriptor set alone.
fn from_json<M: Message + Default>(message: &str, json: &str) -> M {
    let descriptor = pool().get_message_by_name(message).expect("the message is there");
    let dynamic =
        DynamicMessage::deserialize(descriptor, &mut serde_json::Deserializer::from_str(json)).expect("the JSON fits");
    dynamic.transcode_to().expect("the bindings agree with the descriptors")
}

#[test]
fn tools_can_type_a_request_in_one_short_line() {
    let get: GetRequest = from_json("holdfast.v1.GetRequest", r#"{"map":"m","task":{"pid":7}}"#);
    let task = TaskRef { pid: 7, start_time_ticks: None, self_: false };
    assert_eq!(
        get,
        GetRequest { map: "m".to_owned(), owner: Some(v1::get_request::Owner::Task(task)), ..Default::default() }
    );

    let update: UpdateRequest = from_json(
        "holdfast.v1.UpdateRequest",
        r#"{"map":"m","owner_id":5,"value":"AAE=","mode":"UPDATE_MODE_EXIST","expected_version":9}"#,
    );
    assert_eq!(update.owner, Some(v1::update_request::Owner::OwnerId(5)));
    assert_eq!(update.value, [0, 1].as_slice());
    assert_eq!(
        (update.mode(), update.expected_version, update.expected_map_id),
        (v1::UpdateMode::Exist, Some(9), None)
    );

    let delete: DeleteRequest = from_json("holdfast.v1.DeleteRequest", r#"{"map":"m","task":{"self":true}}"#);
    let this = TaskRef { pid: 0, start_time_ticks: None, self_: true };
    assert_eq!(delete.owner, Some(v1::delete_request::Owner::Task(this)));
}

/// The server refuses it and names the field; a type that cannot hold it would leave that to the decoder.
#[test]
fn a_negative_pid_reaches_the_server() {
    let get: GetRequest = from_json("holdfast.v1.GetRequest", r#"{"map":"m","task":{"pid":-1}}"#);
    let Some(v1::get_request::Owner::Task(task)) = get.owner else { panic!("no task in {get:?}") };
    assert_eq!(task.pid, -1);
}

#[test]
fn an_absent_initial_value_differs_from_an_empty_one() {
    let absent: GetRequest = from_json("holdfast.v1.GetRequest", r#"{"map":"m","create_if_missing":true}"#);
    let empty: GetRequest =
        from_json("holdfast.v1.GetRequest", r#"{"map":"m","create_if_missing":true,"initial_value":""}"#);
    assert_eq!(absent.initial_value, None);
    assert_eq!(empty.initial_value, Some(Bytes::new()));
}

#[test]
fn a_value_is_not_copied_out_of_its_message() {
    let request = CreateRequest { map: "m".to_owned(), owner: None, value: Bytes::from(vec![7; 4096]) };
    let wire = Bytes::from(request.encode_to_vec());
    let decoded = CreateRequest::decode(wire.clone()).expect("decodes what was encoded");
    assert_eq!(decoded, request);
    assert!(wire.as_ptr_range().contains(&decoded.value.as_ptr()), "the value was copied");
}

#[test]
fn an_item_of_a_batch_is_found_by_its_index() {
    let mut got = v1::BatchGetResponse { values: Bytes::from_static(b"aabbcc"), value_size: 2, ..Default::default() };
    assert_eq!([0, 1, 2].map(|index| got.value(index)), [Ok(&b"aa"[..]), Ok(b"bb"), Ok(b"cc")]);
    got.statuses = vec![0, Reason::ElementNotFound.into(), 100_000];
    let unknown = Err(Reason::Unspecified);
    assert_eq!([0, 1, 2].map(|index| got.value(index)), [Ok(&b"aa"[..]), Err(Reason::ElementNotFound), unknown]);
    assert_eq!(got.status(2), Err(Reason::Unspecified), "of a later version, and a refusal all the same");
    assert_eq!(v1::BatchDeleteResponse::default().status(7), Ok(()));
}

#[test]
fn tools_can_type_a_batch() {
    let get: v1::BatchGetRequest = from_json(
        "holdfast.v1.BatchGetRequest",
        r#"{"map":"m","owners":[{"task":{"pid":7}},{"owner_id":2}],"with_versions":true}"#,
    );
    let owners: Vec<_> = get.owners.into_iter().map(|owner| owner.owner.map(OwnerRef::from)).collect();
    let task = TaskRef { pid: 7, start_time_ticks: None, self_: false };
    assert_eq!(owners, [Some(OwnerRef::Task(task)), Some(OwnerRef::OwnerId(2))]);
    let update: v1::BatchUpdateRequest =
        from_json("holdfast.v1.BatchUpdateRequest", r#"{"map":"m","owner_ids":[1,2],"values":"AAE="}"#);
    assert_eq!((update.owner_ids, update.values), (vec![1, 2], Bytes::from_static(&[0, 1])));
}

#[test]
fn the_columns_of_a_batch_are_packed() {
    let ids = vec![u64::MAX; 1000];
    let request = v1::BatchGetRequest { owner_ids: ids, ..Default::default() };
    assert_eq!(request.encoded_len(), 8 * 1000 + 3);
    let statuses = vec![Reason::ElementNotFound.into(); 1000];
    assert_eq!(v1::BatchUpdateResponse { statuses, ..Default::default() }.encoded_len(), 1000 + 3);
    // One byte is what the server counts for a status when it looks whether an answer fits.
    for value in pool().get_enum_by_name("holdfast.v1.Reason").expect("is there").values() {
        assert!(value.number() < 128, "{}", value.name());
    }
}
