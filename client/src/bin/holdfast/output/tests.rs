use serde_json::json;

use super::*;

const HEADER: &[&str] = &["ID", "NAME"];

fn printed(format: Format, print: impl FnOnce(&mut Output<&mut Vec<u8>>) -> io::Result<()>) -> String {
    printed_in(None, format, print)
}

fn printed_in(
    width: Option<u16>,
    format: Format,
    print: impl FnOnce(&mut Output<&mut Vec<u8>>) -> io::Result<()>,
) -> String {
    let mut bytes = Vec::new();
    let mut output = Output::new(format, width, &mut bytes);
    print(&mut output).and_then(|()| output.flush()).expect("a vector takes everything");
    drop(output);
    String::from_utf8(bytes).expect("text")
}

fn listed(format: Format, pages: &[&[(u64, &str)]]) -> String {
    printed(format, |output| {
        let mut listing = Listing::new(output, HEADER);
        for page in pages {
            let cells = |(id, name): &(u64, &str)| vec![id.to_string(), (*name).to_owned()];
            listing.page(page, cells, |(id, name)| json!({ "id": id, "name": name }))?;
        }
        listing.end()
    })
}

#[test]
fn an_answer_is_one_line() {
    let answer = json!({ "version": 12, "owner_id": 7 });
    assert_eq!(printed(Format::Table, |output| output.line(&answer)), "version 12 owner_id 7\n");
    assert_eq!(printed(Format::Json, |output| output.line(&answer)), "{\"version\":12,\"owner_id\":7}\n");
}

#[test]
fn a_record_has_its_scalars_first_and_its_lists_as_tables() {
    let record = json!({
        "name": "m",
        "type": "",
        "path": "/a\nb",
        "limits": { "maps": 5, "size": null },
        "cpus": [{ "index": 0, "tid": 17 }],
        "workers": [
            { "index": 0, "lock": { "fast": 10 }, "border": { "jobs": 3, "batches": 2 } },
            { "index": 1, "lock": { "fast": 2 }, "border": { "jobs": 4, "batches": 1 } },
        ],
        "none": [],
    });
    let text = printed(Format::Table, |output| output.record(&record));
    let expected = "\
name         m
type         -
path         /a\\nb
limits.maps  5
limits.size  -

cpus:
INDEX  TID
0      17

workers.lock:
INDEX  FAST
0      10
1      2

workers.border:
INDEX  JOBS  BATCHES
0      3     2
1      4     1
";
    assert_eq!(text, expected);
    let json = printed(Format::Json, |output| output.record(&record));
    assert_eq!(serde_json::from_str::<Json>(&json).expect("one object"), record);
}

#[test]
fn a_listing_has_one_header_and_its_columns_do_not_shrink() {
    let text = listed(Format::Table, &[&[(1, "tenant"), (1000, "x")], &[], &[(2, "y")]]);
    assert_eq!(text, "ID    NAME\n1     tenant\n1000  x\n2     y\n");
    assert_eq!(listed(Format::Table, &[&[]]), "ID  NAME\n");
    assert_eq!(listed(Format::Table, &[&[], &[(1, "x")]]), "ID  NAME\n1   x\n");
}

#[test]
fn a_listing_in_json_is_one_array() {
    let parse = |text: &str| serde_json::from_str::<Json>(text).expect("one array");
    let text = listed(Format::Json, &[&[(1, "a"), (u64::MAX, "b")], &[], &[(3, "c")]]);
    let expected = json!([{ "id": 1, "name": "a" }, { "id": u64::MAX, "name": "b" }, { "id": 3, "name": "c" }]);
    assert_eq!(parse(&text), expected);
    assert_eq!(parse(&listed(Format::Json, &[&[]])), json!([]));
    assert_eq!(parse(&listed(Format::Json, &[])), json!([]));
}

const OWNERS: &[&str] = &["OWNER_ID", "OWNER", "VERSION"];
const VERSION: &str = "612370361476542465";

/// Rows of an owner's path in a terminal so wide.
fn fitted(width: u16, pages: &[&[&str]]) -> String {
    printed_in(Some(width), Format::Table, |output| {
        let mut listing = Listing::new(output, OWNERS);
        for page in pages {
            listing.page(
                page,
                |path| vec!["7".to_owned(), format!("cgroup {path}"), VERSION.to_owned()],
                |_| json!(0),
            )?;
        }
        listing.end()
    })
}

#[test]
fn a_table_that_fits_is_left_alone() {
    let text = "OWNER_ID  OWNER      VERSION\n7         cgroup /a  612370361476542465\n";
    assert_eq!(fitted(39, &[&["/a"]]), text);
    assert_eq!(fitted(80, &[&["/a"]]), text);
}

#[test]
fn a_long_path_is_wrapped_and_numbers_never_are() {
    let path = "/system.slice/nginx.service";
    let text = fitted(50, &[&[path]]);
    assert!(text.lines().all(|line| line.len() <= 50), "{text}");
    assert!(text.starts_with("OWNER_ID  OWNER ") && text.contains(VERSION) && !text.contains(path), "{text}");
    let squeezed: String = text.split_whitespace().filter(|word| *word != VERSION).collect();
    assert_eq!(squeezed, format!("OWNER_IDOWNERVERSION7cgroup{path}"), "nothing is lost: {text}");
}

#[test]
fn where_no_table_fits_every_row_is_a_block() {
    let block = |path: &str| format!("owner_id  7\nowner     cgroup {path}\nversion   {VERSION}\n");
    for width in [1, 3, 38] {
        let text = fitted(width, &[&["/a/b", "/c"], &[], &["/d"]]);
        assert_eq!(text, [block("/a/b"), block("/c"), block("/d")].join("\n"), "{width}");
    }
    assert_eq!(fitted(3, &[&[]]), "OWNER_ID  OWNER  VERSION\n", "who finds nothing sees that it is nothing");
}

#[test]
fn a_table_goes_on_as_a_table() {
    let text = fitted(39, &[&["/a"], &["/much/longer"]]);
    assert!(text.lines().nth(2).is_some_and(|line| line.starts_with("7  ")), "{text}");
}
