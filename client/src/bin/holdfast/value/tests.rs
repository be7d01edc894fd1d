use std::io::Write;

use serde_json::json;

use super::*;

#[test]
fn values_print_as_their_type_says() {
    for (value_type, bytes, printed, json) in [
        ("u32", &[2, 1, 0, 0][..], "258", json!(258)),
        ("u64", &[255; 8], "18446744073709551615", json!(u64::MAX)),
        ("i64", &[254, 255, 255, 255, 255, 255, 255, 255], "-2", json!(-2)),
        ("utf8", b"gold\0\0\0\0", "gold", json!("gold")),
        ("utf8", b"\0\0\0\0", "", json!("")),
        ("utf8", "Zürich".as_bytes(), "Zürich", json!("Zürich")),
        ("", &[0, 1, 0xfe], "0001fe", json!("0001fe")),
        ("my_struct", &[0, 1, 0xfe], "0001fe", json!("0001fe")),
        ("U64", &[1, 0, 0, 0, 0, 0, 0, 0], "0100000000000000", json!("0100000000000000")),
    ] {
        let value_type = ValueType::named(value_type);
        assert_eq!(value_type.print(bytes), printed);
        assert_eq!(value_type.read(bytes), json);
    }
}

#[test]
fn bytes_that_are_not_of_the_type_print_in_hex() {
    for (value_type, bytes) in [("u32", &[1, 2, 3][..]), ("u64", &[1, 2, 3, 4]), ("i64", &[]), ("utf8", &[0xff, 0x41])]
    {
        let value_type = ValueType::named(value_type);
        assert_eq!(value_type.print(bytes), to_hex(bytes));
        assert_eq!(value_type.read(bytes), json!(to_hex(bytes)));
    }
}

#[test]
fn text_cannot_steer_the_terminal() {
    assert_eq!(ValueType::Utf8.print(b"a\x1b[2J\n\0b"), "a\\u{1b}[2J\\n\\u{0}b");
    assert_eq!(ValueType::Utf8.print("\u{9b}31m".as_bytes()), "\\u{9b}31m");
    // JSON has escapes of its own.
    assert_eq!(ValueType::Utf8.read(b"a\x1b\n").to_string(), r#""a\u001b\n""#);
}

#[test]
fn hex_is_read_as_it_is_printed_here_and_elsewhere() {
    for text in ["0001feFF", "0x0001feff", "00 01 fe ff", " 00\t01fe ff "] {
        assert_eq!(hex(text).as_deref(), Ok(&[0, 1, 0xfe, 0xff][..]), "{text:?}");
    }
    assert_eq!(hex("").as_deref(), Ok(&[][..]));
    for (text, what) in
        [("0", "1 hex digits"), ("0x123", "3 hex digits"), ("0g", "'g'"), ("é0", "'é'"), ("0x0x", "'x'")]
    {
        assert!(hex(text).expect_err(text).contains(what), "{text:?}");
    }
}

#[test]
fn numbers_are_decimal_or_hex_and_in_range() {
    assert_eq!(unsigned("4294967295"), Ok(u32::MAX));
    assert_eq!(unsigned("0xffffffff"), Ok(u32::MAX));
    assert_eq!(unsigned("18446744073709551615"), Ok(u64::MAX));
    for text in ["4294967296", "0x100000000", "", "0x", "-1", "1.5", "ff"] {
        let error = unsigned::<u32>(text).expect_err(text);
        assert!(error.contains("0 to 4294967295"), "{error}");
    }
}

#[test]
fn signed_numbers_are_decimal_and_in_range() {
    assert_eq!(signed("-9223372036854775808"), Ok(i64::MIN));
    assert_eq!(signed("9223372036854775807"), Ok(i64::MAX));
    for text in ["9223372036854775808", "-9223372036854775809", "", "0x1", "--1", "1.5"] {
        let error = signed(text).expect_err(text);
        assert!(error.contains("-9223372036854775808 to 9223372036854775807"), "{error}");
    }
}

#[test]
fn files_are_read_up_to_the_limit() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&[7; 100]).expect("written");
    assert_eq!(read_file(file.path()).expect("read"), [7; 100]);

    file.as_file().set_len(MAX_FILE_BYTES + 1).expect("grown");
    let error = read_file(file.path()).expect_err("too large").to_string();
    assert!(error.contains("larger than 16777216 bytes"), "{error}");

    let missing = file.path().with_extension("missing");
    let error = read_file(&missing).expect_err("missing").to_string();
    assert!(error.contains("--file") && error.contains("No such file"), "{error}");
}
