use std::collections::HashMap;

use tonic_types::{ErrorDetails, StatusExt};

use super::*;

fn read(status: Status) -> Error {
    Error::from_status(&status, &Endpoint::default())
}

fn details(domain: &str, reason: &str) -> ErrorDetails {
    let metadata = HashMap::from([("current_version".to_owned(), "7".to_owned())]);
    ErrorDetails::with_error_info(reason, domain, metadata)
}

#[test]
fn our_error_info_makes_a_refusal_with_all_its_details() {
    let mut details = details("holdfast", "INVALID_VALUE");
    details.set_retry_info(Some(Duration::from_millis(30))).add_bad_request_violation("value", "must have 8 bytes");
    let status = Status::with_error_details(Code::InvalidArgument, "a value of 4 bytes", details);
    let error = read(status);
    assert!(!error.may_have_happened());
    assert_eq!(error.reason(), Some(Reason::InvalidValue));
    assert_eq!(error.to_string(), "INVALID_VALUE: a value of 4 bytes; value: must have 8 bytes");
    let Error::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal.code, Code::InvalidArgument);
    assert_eq!(refusal.metadata.get("current_version").map(String::as_str), Some("7"));
    assert_eq!(refusal.retry_after, Some(Duration::from_millis(30)));
    let violation = FieldViolation { field: "value".to_owned(), description: "must have 8 bytes".to_owned() };
    assert_eq!(refusal.violations, [violation]);
}

#[test]
fn a_violation_that_the_message_tells_is_not_told_twice() {
    let mut details = details("holdfast", "INVALID_NAME");
    details.add_bad_request_violation("name", "must not be empty");
    let status = Status::with_error_details(Code::InvalidArgument, "name: must not be empty", details);
    assert_eq!(read(status).to_string(), "INVALID_NAME: name: must not be empty");
}

#[test]
fn a_reason_of_a_newer_server_is_a_refusal_all_the_same() {
    let status = Status::with_error_details(Code::Aborted, "later", details("holdfast", "LOCK_DEADLOCK_XYZ"));
    let error = read(status);
    assert_eq!(error.reason(), None);
    assert!(!error.may_have_happened());
    assert_eq!(error.to_string(), "LOCK_DEADLOCK_XYZ: later");
}

#[test]
fn without_our_error_info_nobody_knows() {
    for status in [
        Status::unavailable("upstream connect error"),
        Status::with_error_details(Code::Unavailable, "no", details("proxy.example", "LOCK_TIMEOUT")),
        Status::with_details(Code::Unavailable, "garbage", vec![0xff, 1, 2, 3].into()),
    ] {
        let message = status.message().to_owned();
        let error = read(status);
        assert!(error.may_have_happened(), "{error:?}");
        assert_eq!(error.reason(), None);
        let text = error.to_string();
        assert!(text.contains(&message) && text.contains("http://127.0.0.1:7411") && text.contains("Unavailable"));
    }
}
