use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::{CommandLine, Config, Options};
use crate::logging::Format;
use crate::transport::Endpoint;

/// Every option, as the file spells it, with a value that is not the default.
const EVERY_OPTION: &str = r#"
listen = ["127.0.0.1:0", "[::1]:7000"]
unix = "/run/holdfast/test.sock"
insecure-listen = true
cpus = "0-1,3"
workers-per-cpu = 2
mailbox = 16
io-threads = 3
inline-mutations = false
lock-timeout-ms = 40
allow-simulated-owners = true
allow-lab-steps = true
max-maps = 7
max-owners = 8
max-owner-bytes = 18
max-bytes = 19
max-value-size = 9
max-message-size = 10000
max-connections = 11
max-connection-age-s = 12
keep-alive-interval-s = 13
keep-alive-timeout-s = 14
transfer-timeout-s = 17
drain-notice-ms = 15
drain-timeout-ms = 16
log = "warn,holdfastd=debug"
log-format = "json"
guard = "percpu-counter"
"#;

fn options(file: &str) -> Options {
    toml::from_str(file).unwrap()
}

fn config(file: &str) -> Config {
    options(file).into_config().unwrap()
}

fn refusal(file: &str) -> String {
    options(file).into_config().unwrap_err().to_string()
}

fn command_line(arguments: &[&str]) -> Options {
    CommandLine::try_parse_from([&["holdfastd"], arguments].concat()).unwrap().options
}

#[test]
fn every_option_arrives_where_it_belongs() {
    let config = config(EVERY_OPTION);
    let unix = Endpoint::Unix(PathBuf::from("/run/holdfast/test.sock"));
    let tcp = ["127.0.0.1:0", "[::1]:7000"].map(|address| Endpoint::Tcp(address.parse().unwrap()));
    assert_eq!(config.endpoints, [&tcp[..], &[unix]].concat());
    assert_eq!(config.workers.cpus, Some(vec![0, 1, 3]));
    assert_eq!((config.workers.per_cpu, config.workers.mailbox, config.io_threads), (2, 16, 3));
    assert_eq!(config.engine.lock_timeout, Duration::from_millis(40));
    assert_eq!(config.engine.guard, engine::Guard::PerCpuCounter);
    assert!(config.engine.owners.simulated && !config.engine.inline_mutations);
    assert_eq!((config.engine.max_maps, config.engine.owners.max_owners), (7, 8));
    assert_eq!((config.engine.max_owner_bytes, config.engine.max_bytes), (Some(18), Some(19)));
    assert_eq!((config.engine.max_value_size, config.max_message_size), (9, 10_000));
    assert_eq!(config.transport.max_connections, Some(11));
    assert_eq!(config.transport.max_age, Some(Duration::from_secs(12)));
    assert_eq!(config.transport.keep_alive_interval, Some(Duration::from_secs(13)));
    assert_eq!(config.transport.keep_alive_timeout, Duration::from_secs(14));
    assert_eq!(config.transport.transfer_timeout, Duration::from_secs(17));
    assert_eq!((config.drain.notice, config.drain.timeout), (Duration::from_millis(15), Duration::from_millis(16)));
    assert_eq!((config.log.filter.as_str(), config.log.format), ("warn,holdfastd=debug", Format::Json));
}

#[test]
fn every_flag_is_a_key_and_a_variable() {
    let file: toml::Table = EVERY_OPTION.parse().unwrap();
    let mut flags = 0;
    for flag in CommandLine::command().get_arguments() {
        let Some(name) = flag.get_long().filter(|name| !["help", "version", "man"].contains(name)) else { continue };
        let variable = format!("HOLDFAST_{}", name.replace('-', "_").to_uppercase());
        assert_eq!(flag.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
        if name != "config" {
            assert!(file.contains_key(name), "no key {name}");
            flags += 1;
        }
    }
    assert_eq!(flags, file.len());
}

#[test]
fn flags_say_the_same_as_the_file() {
    let file: toml::Table = EVERY_OPTION.parse().unwrap();
    let arguments = file.iter().flat_map(|(key, value)| {
        let values = match value {
            toml::Value::Array(values) => values.iter().map(|value| value.as_str().unwrap().to_owned()).collect(),
            toml::Value::String(text) => vec![text.clone()],
            other => vec![other.to_string()],
        };
        values.into_iter().map(move |value| format!("--{key}={value}"))
    });
    let arguments: Vec<_> = arguments.collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    assert_eq!(command_line(&arguments), options(EVERY_OPTION));
}

#[test]
fn a_flag_comes_before_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"max-maps = 7\nmax-owners = 8\n").unwrap();
    let path = file.path().to_str().unwrap();
    let command_line = CommandLine::try_parse_from(["holdfastd", "--config", path, "--max-maps", "9"]).unwrap();
    let config = command_line.into_config().unwrap();
    assert_eq!((config.engine.max_maps, config.engine.owners.max_owners), (9, 8));
}

#[test]
fn switches_need_no_value_and_take_one() {
    assert_eq!(command_line(&["--allow-simulated-owners"]).allow_simulated_owners, Some(true));
    assert_eq!(command_line(&["--allow-simulated-owners", "false"]).allow_simulated_owners, Some(false));
}

#[test]
fn nothing_given_serves_on_loopback() {
    let config = config("");
    assert_eq!(config.endpoints, [Endpoint::Tcp("127.0.0.1:7411".parse().unwrap())]);
    let unix_alone = self::config("unix = 'h.sock'").endpoints;
    assert_eq!(unix_alone, [Endpoint::Unix(std::env::current_dir().unwrap().join("h.sock"))]);
}

/// `--help` is written by hand, since options have no defaults of their own.
#[test]
fn help_says_the_defaults() {
    let config = Config::default();
    let help = CommandLine::command().term_width(0).render_long_help().to_string();
    let defaults = [
        ("--listen", config.endpoints[0].to_string().replace("tcp://", "")),
        ("--insecure-listen", "false".to_owned()),
        ("--workers-per-cpu", config.workers.per_cpu.to_string()),
        ("--mailbox", config.workers.mailbox.to_string()),
        ("--io-threads", config.io_threads.to_string()),
        ("--inline-mutations", config.engine.inline_mutations.to_string()),
        ("--lock-timeout-ms", config.engine.lock_timeout.as_millis().to_string()),
        ("--allow-simulated-owners", config.engine.owners.simulated.to_string()),
        ("--allow-lab-steps", config.engine.lab_steps.to_string()),
        ("--max-maps", config.engine.max_maps.to_string()),
        ("--max-owners", config.engine.owners.max_owners.to_string()),
        ("--max-owner-bytes", "0".to_owned()),
        ("--max-bytes", "0".to_owned()),
        ("--max-value-size", config.engine.max_value_size.to_string()),
        ("--max-message-size", config.max_message_size.to_string()),
        ("--max-connections", crate::app::CONNECTIONS.to_string()),
        ("--max-connection-age-s", "0".to_owned()),
        ("--keep-alive-interval-s", config.transport.keep_alive_interval.unwrap().as_secs().to_string()),
        ("--keep-alive-timeout-s", config.transport.keep_alive_timeout.as_secs().to_string()),
        ("--transfer-timeout-s", config.transport.transfer_timeout.as_secs().to_string()),
        ("--drain-notice-ms", config.drain.notice.as_millis().to_string()),
        ("--drain-timeout-ms", config.drain.timeout.as_millis().to_string()),
        ("--log", config.log.filter),
        ("--log-format", "text".to_owned()),
    ];
    assert_eq!(config.transport.max_age, None);
    assert_eq!((config.engine.max_owner_bytes, config.engine.max_bytes), (None, None));
    for (flag, default) in defaults {
        let part = help.split(&format!("\n      {flag} ")).nth(1).unwrap_or_else(|| panic!("no {flag} in {help}"));
        let part = part.split("\n      --").next().unwrap();
        assert!(part.contains(&format!("[default: {default}")), "{flag}: {default} is not the default of {part}");
    }
}

#[test]
fn the_manual_page_has_every_flag_and_variable() {
    let page = String::from_utf8(CommandLine::manual_page().unwrap()).unwrap().replace("\\-", "-");
    assert!(page.contains(".TH holdfastd 8 "), "{page}");
    let options = page.split(".SH ").find(|section| section.starts_with("OPTIONS\n")).unwrap();
    let mut command = CommandLine::command();
    // With --help and --version.
    command.build();
    for flag in command.get_arguments() {
        let name = flag.get_long().unwrap();
        assert!(options.contains(&format!("\\fB--{name}\\fR")), "no --{name} in {options}");
        if let Some(variable) = flag.get_env() {
            assert!(options.contains(&format!("\\fB{}\\fR", variable.display())), "no {variable:?} in {options}");
        }
    }
}

#[test]
fn no_bytes_are_no_limit() {
    let config = config("max-owner-bytes = 0\nmax-bytes = 0");
    assert_eq!((config.engine.max_owner_bytes, config.engine.max_bytes), (None, None));
}

#[test]
fn tcp_beyond_loopback_has_to_be_asked_for() {
    for public in ["0.0.0.0:7411", "[::]:7411", "192.0.2.1:7411", "[::ffff:192.0.2.1]:7411"] {
        let refusal = refusal(&format!("listen = ['127.0.0.1:7411', '{public}']"));
        assert!(refusal.contains("--listen") && refusal.contains("--insecure-listen"), "{refusal}");
        let asked = format!("listen = ['{public}']\ninsecure-listen = true");
        assert_eq!(config(&asked).endpoints, [Endpoint::Tcp(public.parse().unwrap())]);
    }
    for private in ["127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(config(&format!("listen = ['{private}']")).endpoints.len(), 1);
    }
}

#[test]
fn values_out_of_range_name_their_option() {
    let wrong = [
        ("listen = []", "--listen"),
        ("workers-per-cpu = 0", "--workers-per-cpu"),
        ("mailbox = 0", "--mailbox"),
        ("io-threads = 0", "--io-threads"),
        ("lock-timeout-ms = 0", "--lock-timeout-ms"),
        ("lock-timeout-ms = 9000000000000000000", "--lock-timeout-ms"),
        ("max-maps = 0", "--max-maps"),
        ("max-owners = 0", "--max-owners"),
        ("max-value-size = 0", "--max-value-size"),
        ("max-value-size = 4194304", "--max-value-size"),
        ("max-message-size = 8192", "--max-message-size"),
        ("max-message-size = 60000", "--max-message-size"),
        ("max-connections = 0", "--max-connections"),
        ("max-connection-age-s = 90000", "--max-connection-age-s"),
        ("keep-alive-interval-s = 90000", "--keep-alive-interval-s"),
        ("keep-alive-timeout-s = 0", "--keep-alive-timeout-s"),
        ("transfer-timeout-s = 0", "--transfer-timeout-s"),
        ("drain-notice-ms = 10001", "--drain-timeout-ms"),
        ("log = 'holdfastd=loud'", "--log"),
    ];
    for (file, option) in wrong {
        let refusal = refusal(file);
        assert!(refusal.starts_with(&format!("{option}: ")), "{file}: {refusal}");
    }
}

#[test]
fn a_file_with_an_unknown_key_is_refused_with_its_place() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"max-maps = 7\nmax-mops = 8\n").unwrap();
    let options = || CommandLine { config: Some(file.path().to_owned()), options: Options::default(), man: false };
    let refusal = options().into_config().unwrap_err().to_string();
    assert!(refusal.contains("max-mops") && refusal.contains("line 2"), "{refusal}");

    let absent = CommandLine { config: Some("/absent/holdfast.toml".into()), options: Options::default(), man: false };
    let refusal = absent.into_config().unwrap_err().to_string();
    assert!(refusal.contains("/absent/holdfast.toml"), "{refusal}");
}
