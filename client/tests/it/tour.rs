//! The command line against the real server.

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::command_line::{holdfast, stderr, stdout, words};
use crate::server::Server;
use crate::skipped;

/// How long an exit may take to be seen, on a busy machine.
const SEEN: Duration = Duration::from_secs(30);

/// A server and what is typed to it.
struct Tour(Server);

impl Tour {
    fn start() -> Self {
        Self(Server::start())
    }

    fn run(&self, line: &str) -> Output {
        holdfast(&self.0.unix, &words(line))
    }

    /// What it prints; it must succeed and leave stderr alone.
    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
        stdout(&output).to_owned()
    }

    fn json(&self, line: &str) -> Json {
        let text = self.ok(&format!("{line} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    }

    /// The first line on stderr; it must be refused by the server.
    fn refused(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        assert_eq!(stdout(&output), "", "{line}");
        stderr(&output).lines().next().unwrap_or_default().to_owned()
    }

    /// Repeats the line until it is refused for this reason.
    fn refused_soon(&self, line: &str, reason: &str) {
        let deadline = Instant::now() + SEEN;
        loop {
            let output = self.run(line);
            if output.status.code() == Some(1) && stderr(&output).starts_with(&format!("error: {reason}: ")) {
                return;
            }
            assert!(Instant::now() < deadline, "{line} is still {output:?}");
        }
    }

    /// Repeats the line until it prints this.
    fn json_soon(&self, line: &str, expected: &Json) {
        let deadline = Instant::now() + SEEN;
        loop {
            let printed = self.json(line);
            if printed == *expected {
                return;
            }
            assert!(Instant::now() < deadline, "{line} is still {printed}");
        }
    }
}

/// A process that ends when its stdin closes.
struct Process(Child);

impl Process {
    fn start() -> Self {
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat starts");
        Self(child)
    }

    fn end(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it was running");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn a_value_lives_as_long_as_its_process() {
    let tour = Tour::start();
    let mut process = Process::start();
    let pid = process.0.id();
    assert_eq!(tour.ok("map create tenant --kind task --type u64"), "map_id 1\n");
    let stored = tour.ok(&format!("update tenant --task {pid} --u64 42"));
    assert!(stored.starts_with("version ") && stored.ends_with(" owner_id 1\n"), "{stored}");
    assert_eq!(tour.ok(&format!("get tenant --task {pid}")), "42\n");

    let got = tour.run("get tenant --owner-id 1 -v");
    assert_eq!((stdout(&got), stderr(&got)), ("42\n", &*format!("{} created false\n", stored.trim_end())));
    let owner = tour.json(&format!("owner show {pid}"));
    assert_eq!((&owner["task"]["pid"], &owner["state"], &owner["elements"]), (&json!(pid), &json!("live"), &json!(1)));
    let ticks = &owner["task"]["start_time_ticks"];
    assert_eq!(tour.ok(&format!("get tenant --task {pid}@{ticks}")), "42\n");
    assert!(tour.refused(&format!("get tenant --task {pid}@1")).contains("OWNER_NOT_FOUND"));
    let rows = tour.ok("list tenant");
    let words: Vec<_> = rows.split_whitespace().collect();
    let version = stored.split_whitespace().nth(1).expect("version V");
    assert_eq!(words, ["OWNER_ID", "OWNER", "VERSION", "VALUE", "1", "task", &pid.to_string(), version, "42"]);

    process.end();
    tour.refused_soon(&format!("get tenant --task {pid}"), "OWNER_EXITED");
    // A get by pid asks the kernel, and so may know it before the server has heard of it.
    tour.json_soon("list tenant", &json!([]));
    assert_eq!(tour.json("map show tenant")["elements"], 0);
}

#[test]
fn a_value_lives_as_long_as_its_cgroup() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc is there");
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|mount| mount[2] == "cgroup2");
    let Some(mount) = mount else { return skipped("a_value_lives_as_long_as_its_cgroup", "no cgroup2 mount") };
    let directory = std::path::PathBuf::from(format!("{}/holdfast-test-{}", mount[1], std::process::id()));
    if let Err(error) = std::fs::create_dir(&directory) {
        return skipped("a_value_lives_as_long_as_its_cgroup", format_args!("{}: {error}", directory.display()));
    }
    let tour = Tour::start();
    tour.ok("map create label --kind cgroup --type utf8 --value-size 16");
    let path = directory.display();
    tour.ok(&format!("create label --cgroup {path} --text gold"));
    assert_eq!(tour.ok(&format!("get label --cgroup {path}")), "gold\n");
    let owner = tour.json(&format!("owner show --cgroup {path}"));
    assert_eq!(tour.ok(&format!("get label --cgroup-id {}", owner["cgroup"]["id"])), "gold\n");
    let named = owner["cgroup"]["path"].as_str().expect("a path");
    assert!(tour.ok("list label").contains(&format!("cgroup {named} ")));

    std::fs::remove_dir(&directory).expect("an empty cgroup");
    tour.refused_soon("get label --owner-id 1", "OWNER_EXITED");
    assert_eq!(tour.json("list label"), json!([]));
}

#[test]
fn values_come_back_as_they_were_given() {
    let tour = Tour::start();
    tour.ok("owner create-simulated --kind task --count 1");
    for (map, create, value, printed, json, hex) in [
        ("u32", "--type u32", "--u32 4294967295", "4294967295", json!(u32::MAX), "ffffffff"),
        ("u64", "--type u64", "--u64 0xffffffffffffffff", "18446744073709551615", json!(u64::MAX), "ffffffffffffffff"),
        ("i64", "--type i64", "--i64 -2", "-2", json!(-2), "feffffffffffffff"),
        ("text", "--type utf8 --value-size 6", "--text gold", "gold", json!("gold"), "676f6c640000"),
        ("full", "--type utf8 --value-size 4", "--text gold", "gold", json!("gold"), "676f6c64"),
        ("own", "--type mine --value-size 3", "--hex 0x00fF7f", "00ff7f", json!("00ff7f"), "00ff7f"),
    ] {
        tour.ok(&format!("map create {map} --kind task {create}"));
        tour.ok(&format!("create {map} --simulated 0 {value}"));
        assert_eq!(tour.ok(&format!("get {map} --simulated 0")), format!("{printed}\n"));
        let got = tour.json(&format!("get {map} --simulated 0"));
        assert_eq!((&got["value"], &got["hex"]), (&json, &json!(hex)));
        assert_eq!(tour.json(&format!("list {map}"))[0]["value"], json);
    }
}

#[test]
fn files_go_in_and_out_byte_for_byte() {
    let tour = Tour::start();
    tour.ok("owner create-simulated --kind task --count 1");
    tour.ok("map create blob --kind task --value-size 256");
    let bytes: Vec<u8> = (0..=255).collect();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), &bytes).expect("written");
    tour.ok(&format!("create blob --simulated 0 --file {}", file.path().display()));
    assert_eq!(tour.run("get blob --simulated 0 --raw").stdout, bytes);
    // Text is only filled up where the map says that it is text.
    assert!(tour.refused("update blob --simulated 0 --text gold").contains("INVALID_VALUE"));
    // A long value is shortened in a table alone.
    let row = tour.ok("list blob");
    assert!(row.contains("000102") && row.contains('…') && !row.contains("fdfeff"), "{row}");
    assert_eq!(tour.json("list blob")[0]["hex"].as_str().map(str::len), Some(512));
}

#[test]
fn writes_happen_only_on_their_conditions() {
    let tour = Tour::start();
    tour.ok("owner create-simulated --kind task --count 1");
    let map_id = tour.json("map create m --kind task --type u64")["map_id"].clone();
    let m = "m --simulated 0";
    assert!(tour.refused(&format!("get {m}")).starts_with("error: ELEMENT_NOT_FOUND: "));
    assert!(tour.refused(&format!("update {m} --u64 1 --mode exist")).contains("ELEMENT_NOT_FOUND"));
    assert_eq!(tour.ok(&format!("get {m} --create --u64 7")), "7\n");
    assert_eq!(tour.ok(&format!("get {m} --create --u64 8")), "7\n", "it was there");
    assert!(tour.refused(&format!("create {m} --u64 1")).contains("ELEMENT_EXISTS"));
    assert!(tour.refused(&format!("update {m} --u64 1 --mode noexist")).contains("ELEMENT_EXISTS"));
    let version = tour.json(&format!("get {m}"))["version"].clone();
    let swapped = tour.json(&format!("update {m} --u64 9 --expect-version {version} --expect-map-id {map_id}"));
    assert_ne!(swapped["version"], version);
    assert!(tour.refused(&format!("update {m} --u64 1 --expect-version {version}")).contains("VERSION_MISMATCH"));
    assert!(tour.refused(&format!("delete {m} --expect-version {version}")).contains("VERSION_MISMATCH"));
    assert!(tour.refused(&format!("delete {m} --expect-map-id 99")).contains("MAP_ID_MISMATCH"));
    assert!(tour.refused("map free m --expect-map-id 99").contains("MAP_ID_MISMATCH"));
    assert_eq!(tour.ok(&format!("get {m}")), "9\n", "no refusal has changed it");
    assert_eq!(tour.ok(&format!("delete {m} --expect-version {}", swapped["version"])), "owner_id 1\n");
    assert_eq!(tour.ok(&format!("map free m --expect-map-id {map_id}")), "freed_elements 0\n");
    assert!(tour.refused("map show m").contains("MAP_NOT_FOUND"));
}

#[test]
fn listings_are_one_table_or_one_array() {
    let tour = Tour::start();
    assert_eq!(tour.ok("owner create-simulated --kind task --first 1000 --count 2500"), "created 2500\n");
    tour.ok("map create m --kind task --type u32");
    for id in 1000..1050 {
        tour.ok(&format!("create m --simulated {id} --u32 {id}"));
    }
    let sorted = |values: &mut dyn Iterator<Item = u64>| {
        let mut values: Vec<_> = values.collect();
        values.sort_unstable();
        values
    };
    let table = tour.ok("list m");
    let last_words = table.lines().skip(1).filter_map(|row| row.split_whitespace().last());
    let mut values = last_words.map(|word| word.parse().expect("a number"));
    assert_eq!(sorted(&mut values), (1000..1050).collect::<Vec<_>>());
    let list = tour.json("list m");
    let mut values = list.as_array().into_iter().flatten().map(|element| element["value"].as_u64().expect("a number"));
    assert_eq!(sorted(&mut values), (1000..1050).collect::<Vec<_>>());

    // Of several pages.
    let owners = tour.json("owner list");
    let simulated = |owner: &Json| owner["simulated"]["id"].as_u64().expect("an id");
    let mut ids = owners.as_array().into_iter().flatten().map(simulated);
    assert_eq!(sorted(&mut ids), (1000..3500).collect::<Vec<_>>());
    let table = tour.ok("owner list");
    assert_eq!(table.lines().filter(|row| row.starts_with("OWNER_ID  OWNER ")).count(), 1);
    assert_eq!(table.lines().count(), 2501);
    assert_eq!(tour.json("owner list --kind cgroup"), json!([]));

    assert_eq!(tour.ok("owner destroy-simulated --kind task --first 1000 --count 2501"), "destroyed 2500\n");
    assert_eq!(tour.json("list m"), json!([]));
    assert_eq!(tour.ok("list m"), "OWNER_ID  OWNER  VERSION  VALUE\n");
}

#[test]
fn a_reader_who_leaves_is_no_error_but_a_full_disk_is() {
    let tour = Tour::start();
    tour.ok("owner create-simulated --kind task --count 5000");
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(["owner", "list"]).env("HOLDFAST_ENDPOINT", &tour.0.unix).stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the command line runs");
    child.stdout.take().expect("piped").read_exact(&mut [0]).expect("a first byte");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));

    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = command.stdout(full).output().expect("the command line runs");
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("cannot write the answer"), "{output:?}");
}

#[test]
fn the_caller_is_an_owner_over_a_unix_socket_alone() {
    let tour = Tour::start();
    tour.ok("map create m --kind task --type u64");
    assert_eq!(tour.ok("get m --task self --create --u64 3"), "3\n");
    let output = holdfast(&tour.0.tcp, &["get", "m", "--task", "self"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: INVALID_OWNER: "), "{output:?}");
}

#[test]
fn a_quota_is_shown_and_told() {
    let tour = Tour(Server::with(&["--max-owner-bytes", "16", "--max-bytes", "24"]));
    let limits = &tour.json("admin info")["limits"];
    assert_eq!((&limits["max_owner_bytes"], &limits["max_bytes"]), (&json!(16), &json!(24)));
    for map in ["a", "b", "c"] {
        tour.ok(&format!("map create {map} --kind task --type u64"));
    }
    tour.ok("owner create-simulated --kind task --first 1 --count 2");
    tour.ok("create a --simulated 1 --u64 1");
    tour.ok("create b --simulated 1 --u64 1");
    let output = tour.run("create c --simulated 1 --u64 1");
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""), "{output:?}");
    let lines: Vec<_> = stderr(&output).lines().collect();
    assert!(lines[0].starts_with("error: QUOTA: ") && lines[0].contains("--max-owner-bytes"), "{lines:?}");
    assert!(lines[0].contains(" 16 bytes") && lines[1].starts_with("hint: `holdfast owner show`"), "{lines:?}");
    tour.ok("create a --simulated 2 --u64 1");
    let refused = tour.refused("create b --simulated 2 --u64 1");
    assert!(refused.starts_with("error: QUOTA: ") && refused.contains("--max-bytes"), "{refused}");
    tour.ok("update a --simulated 2 --u64 2");
    tour.ok("delete a --simulated 1");
    tour.ok("create b --simulated 2 --u64 1");
    let refused = tour.refused("map create d --kind task --type text --value-size 17");
    assert!(refused.starts_with("error: INVALID_VALUE_SIZE: "), "{refused}");
}

#[test]
fn a_program_runs_inside_of_calls_until_it_is_detached() {
    let tour = Tour::start();
    tour.ok("owner create-simulated --kind task --count 1");
    for map in ["m", "writes", "deltas"] {
        tour.ok(&format!("map create {map} --kind task --type i64"));
    }
    let attach =
        "program attach watch --hook update_enter --map m 'add writes 1' 'set deltas delta' 'if 2 zero: delete m'";
    assert_eq!(tour.ok(attach), "program_id 1\n");
    tour.ok("update m --simulated 0 --i64 5");
    tour.ok("update m --simulated 0 --i64 3");
    assert_eq!(tour.ok("get writes --simulated 0"), "2\n");
    assert_eq!(tour.ok("get deltas --simulated 0"), "-2\n");
    assert_eq!(
        tour.ok("program list"),
        "NAME   HOOK          MAP  RUNS  MISSES  FAILED\nwatch  update_enter  m    2     0       0\n"
    );
    let steps = tour.ok("program list --steps");
    assert!(steps.lines().nth(2).is_some_and(|row| row.ends_with(" 2     0         -")), "{steps}");
    assert!(steps.lines().nth(3).is_some_and(|row| row.ends_with(" 0     2         -")), "{steps}");

    let detached = tour.json("program detach watch");
    assert_eq!((&detached["runs"], &detached["steps"][0]["done"]), (&json!(2), &json!(2)));
    tour.ok("update m --simulated 0 --i64 3");
    assert_eq!(tour.ok("get writes --simulated 0"), "2\n", "it runs nowhere");
    assert_eq!(tour.json("program list"), json!([]));
}

/// The recursion that Linux' suite pins: a program whose steps come by its own hook point is skipped there, and nothing else is refused.
#[test]
fn a_program_that_meets_itself_is_skipped_and_counted() {
    let tour = Tour::start();
    tour.ok("owner create-simulated --kind task --count 1");
    tour.ok("map create A --kind task --type u64");
    tour.ok("map create B --kind task --type u64");
    tour.ok("program attach p --hook update_enter --all-maps 'add A 1' 'delete A' 'add B 1'");
    tour.ok("get A --simulated 0 --create --u64 200");
    tour.ok("get B --simulated 0 --create --u64 100");
    let program = &tour.json("program detach p");
    assert_eq!((&program["recursion_misses"], &program["map"]), (&json!(2), &json!("")));
    assert!(program["steps"].as_array().into_iter().flatten().all(|step| step["failed"] == json!({})), "{program}");
    assert_eq!((&*tour.ok("get A --simulated 0"), &*tour.ok("get B --simulated 0")), ("200\n", "1\n"));
}

#[test]
fn a_deadlock_of_a_program_is_told_and_fails_a_call_only_if_that_was_asked_for() {
    let tour = Tour::start();
    tour.ok("owner create-simulated --kind task --count 1");
    tour.ok("map create m --kind task --type u64");
    tour.ok("map create other --kind task --type u64");
    tour.ok("create m --simulated 0 --u64 1");
    tour.ok("program attach watch --hook storage_locked --map m 'get-or-create other'");
    tour.ok("update m --simulated 0 --u64 2");
    let events = tour.json("program events");
    let event = &events[0];
    assert_eq!((&event["sequence"], &event["step"], &event["program"]), (&json!(1), &json!(1), &json!("watch")));
    assert_eq!((&event["hook"], &event["map"], &event["owner_id"]), (&json!("storage_locked"), &json!("m"), &json!(1)));
    assert_eq!((&event["reason"], &event["metadata"]["lock"]), (&json!("LOCK_DEADLOCK_AA"), &json!("storage")));
    let list = tour.json("program list");
    assert_eq!(list[0]["steps"][0]["failed"], json!({ "LOCK_DEADLOCK_AA": 1 }));

    tour.ok("program attach admit --hook storage_locked --map m --on-error fail 'get-or-create other'");
    let output = tour.run("update m --simulated 0 --u64 3");
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""), "{output:?}");
    let lines: Vec<_> = stderr(&output).lines().collect();
    assert!(lines[0].starts_with("error: LOCK_DEADLOCK_AA: ") && lines[0].contains("admit"), "{lines:?}");
    assert!(lines[1].starts_with("hint: the program admit makes calls fail"), "{lines:?}");
    assert_eq!(tour.ok("get m --simulated 0"), "2\n", "it has changed nothing");
    let newer = tour.json("program events --after 1");
    assert_eq!(newer.as_array().map(Vec::len), Some(2), "{newer}");
    assert_eq!(newer[1]["program"], "admit");
    let rows = tour.ok("program events --after 2");
    assert!(
        rows.lines().nth(1).is_some_and(|row| row.starts_with("3 ") && row.contains(" LOCK_DEADLOCK_AA ")),
        "{rows}"
    );
    assert_eq!(tour.json("program detach admit")["failed_operations"], 1);
    tour.ok("update m --simulated 0 --u64 3");
}

#[test]
fn a_program_sees_the_last_of_an_owner() {
    let tour = Tour::start();
    tour.ok("owner create-simulated --kind task --count 2");
    tour.ok("map create m --kind task --type u64");
    tour.ok("map create last --kind task --type u64");
    tour.ok("create m --simulated 0 --u64 1");
    tour.ok("create m --simulated 1 --u64 77");
    tour.ok("program attach heir --hook owner_exit --map m 'get m' 'set last of 1 $1'");
    tour.ok("owner destroy-simulated --kind task --first 1 --count 1");
    assert_eq!(tour.ok("get last --owner-id 1"), "77\n");
}

#[test]
fn a_program_goes_out_as_json_and_in_from_a_file() {
    let tour = Tour(Server::with(&["--allow-lab-steps"]));
    tour.ok("owner create-simulated --kind task --count 1");
    tour.ok("map create m --kind task --value-size 24");
    tour.ok("map create c --kind cgroup --value-size 24");
    tour.ok("create m --simulated 0 --hex 000000000000000000000000000000000000000000000000");
    tour.ok(
        "program attach all --hook request_enter --map m --on-error fail 'get m' 'get m 12:2' 'get-or-create m 8:4=old@4:4 -1' \
         'if 2 nonzero: set c of cgroup 16:8=time 8:4=pid 12:4=uid 0:1=$1' 'if 1 failed: add m of 1 delta' 'delete m' \
         'if 3 done: hold 5ms' 'if 3 zero: meet here 2 2000ms' 'add m 8:8=new'",
    );
    let listed = tour.json("program list");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), listed[0].to_string()).expect("written");
    tour.ok("program detach all");
    let attach = format!("program attach --file {}", file.path().display());
    assert_eq!(tour.ok(&attach), "program_id 2\n");
    let again = tour.json("program list");
    for same in ["name", "hook", "map", "on_error", "steps"] {
        assert_eq!(again[0][same], listed[0][same], "{same}");
    }
    assert_eq!(again[0]["steps"].as_array().map(Vec::len), Some(9));
    assert_eq!(again[0]["steps"][2]["step"], "get-or-create m 8:4=old@4:4 -1");
    assert!(tour.refused(&attach).starts_with("error: PROGRAM_EXISTS: "));
}

#[test]
fn a_program_that_cannot_be_is_refused_and_says_why() {
    let tour = Tour::start();
    tour.ok("map create m --kind task --type u64");
    tour.ok("map create c --kind cgroup --type u64");
    for (rest, reason, says) in [
        ("a/b! --hook update_enter --map m 'get m'", "INVALID_PROGRAM", "program.name"),
        ("p --hook update_enter --map nowhere 'get m'", "MAP_NOT_FOUND", "nowhere"),
        ("p --hook update_enter --map m 'get nowhere'", "MAP_NOT_FOUND", "nowhere"),
        ("p --hook update_enter --map m 'get m' 'set m of 99 1'", "OWNER_NOT_FOUND", "step 2"),
        ("p --hook update_enter --map m 'get m 8:8'", "INVALID_PROGRAM", "program.steps[0].parts[0].field"),
        ("p --hook update_enter --map m 'set c 1'", "INVALID_PROGRAM", "program.steps[0].map"),
        ("p --hook update_enter --map m 'set c 1'", "INVALID_PROGRAM", "or the task's cgroup for its owner"),
        ("p --hook update_enter --map m 'if 1 done: get m'", "INVALID_PROGRAM", "program.steps[0].condition.step"),
        ("p --hook update_enter --map m 'add m $1'", "INVALID_PROGRAM", "program.steps[0].parts[0].operand"),
        ("p --hook request_exit --map m --on-error fail 'get m'", "INVALID_PROGRAM", "program.on_error"),
        ("p --hook update_enter --map m 'hold 5ms'", "LAB_STEPS_OFF", "--allow-lab-steps"),
    ] {
        let refused = tour.refused(&format!("program attach {rest}"));
        assert!(refused.starts_with(&format!("error: {reason}: ")) && refused.contains(says), "{rest}: {refused}");
    }
    let steps = "'delete m' ".repeat(33);
    let refused = tour.refused(&format!("program attach p --hook update_enter --map m {steps}"));
    assert!(refused.starts_with("error: INVALID_PROGRAM: program.steps: 33 "), "{refused}");
    assert!(tour.refused("program detach p").starts_with("error: PROGRAM_NOT_FOUND: "));
    assert_eq!(tour.json("program list"), json!([]), "none of them was attached");
}

/// Programs read these names; a change of one breaks them.
#[test]
fn json_has_the_names_of_the_api() {
    let tour = Tour::start();
    tour.ok("map create m --kind task --type u64");
    let pid = std::process::id();
    tour.ok(&format!("create m --task {pid} --u64 1"));
    tour.ok("program attach p --hook update_enter --map m 'get m 4:4' 'add m $1'");
    tour.ok("program attach fails --hook storage_locked --map m 'delete m'");
    tour.ok("update m --owner-id 1 --u64 2");
    let names = |json: &Json| json.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    for (line, pointer, expected) in [
        ("map show m", "", "map_id name kind value_size max_elements value_type buckets elements bytes state"),
        ("map list", "/0", "map_id name kind value_size max_elements value_type buckets elements bytes state"),
        ("list m", "/0", "owner value hex version"),
        ("list m", "/0/owner", "owner_id kind task"),
        ("list m", "/0/owner/task", "pid start_time_ticks pidfd_inode thread"),
        ("get m --owner-id 1", "", "value hex version owner_id created"),
        ("owner show --owner-id 1", "", "owner_id kind task state storage_serial worker elements bytes"),
        ("owner list", "/0", "owner_id kind task state storage_serial worker elements bytes"),
        (
            "admin info",
            "",
            "version instance_id start_time pid_namespace_inode guard simulated_owners_allowed lab_steps_allowed limits \
             workers",
        ),
        (
            "program list",
            "/0",
            "program_id name hook map on_error attached runs recursion_misses failed_operations steps",
        ),
        ("program list", "/0/steps/1", "step done left_out failed"),
        (
            "program events",
            "/0",
            "sequence time program program_id step hook map owner_id worker reason message metadata",
        ),
        ("program events", "/0/metadata", "lock owner_id worker"),
        ("admin info", "/workers/0", "index processor pinned tid"),
        (
            "admin stats",
            "",
            "instance_id maps elements bytes task_owners cgroup_owners simulated_owners retry_list_length \
             retired_pending exits_seen connections workers io_threads",
        ),
        ("admin stats", "/workers/0", "index lock border"),
        ("admin stats", "/io_threads/0", "done handed_over lock"),
    ] {
        let json = tour.json(line);
        assert_eq!(names(json.pointer(pointer).expect(pointer)), expected, "{line} {pointer}");
    }
    let text = tour.ok("admin stats");
    assert!(text.contains("\nworkers.lock:\nINDEX  FAST"), "{text}");
}
