//! `metrics:` over both kinds of socket, read by the parser that Prometheus's own client library has; and the shipped
//! dashboard and alert rules, which name only metrics that there are.

use super::{ALICE, Peer, RIGHT, WRONG, auth, directory, not_tested, start};
use sasld::control::reply::Metrics;
use sasld::control::{Request, ask};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// Prints each sample as the parser understands it.
const READER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        labels = ','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))
        print(f'{sample.name}{{{labels}}} {float(sample.value)}')
";

fn get(mut stream: impl Read + Write, path: &str) -> (String, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// `None` where there is no parser.
fn parsed(exposition: &str) -> Option<Vec<String>> {
    let python = Command::new("/usr/bin/python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        not_tested("there is no python3, so no parser of OpenMetrics");
        return None;
    };
    python.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    if stderr.contains("ModuleNotFoundError") {
        not_tested("there is no python3-prometheus-client, so no parser of OpenMetrics");
        return None;
    }
    assert!(output.status.success(), "{stderr}\n{exposition}");
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn logins_are_counted_in_what_a_scraper_reads() {
    let dir = directory();
    let socket = dir.path().join("metrics");
    let settings = format!("metrics: {{unix: {}}}\nservices: {{submission: {{}}}}\n", socket.display());
    let sasld = start(&dir, ALICE, &settings);
    let mut peer = Peer::greeted(&sasld.socket());
    for (id, response) in [(1, RIGHT), (2, WRONG), (3, WRONG)] {
        peer.send(&auth(id, "PLAIN", response));
        peer.line();
    }
    // A label is a section of the configuration, never a mail server's own word.
    peer.send(&auth(4, "PLAIN", RIGHT).replace("smtp", "submission"));
    peer.line();
    peer.send(&auth(5, "NOPE", RIGHT).replace("smtp", "\u{1}\"odd"));
    peer.line();
    let (head, body) = get(UnixStream::connect(&socket).unwrap(), "/metrics");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0"));
    assert!(!body.contains("alice") && !body.contains("192.0.2.7") && !body.contains("odd"), "{body}");
    let Some(samples) = parsed(&body) else { return };
    for expected in [
        "sasld_auth_attempts_total{mechanism=PLAIN,result=ok,service=other,why=} 1.0",
        "sasld_auth_attempts_total{mechanism=PLAIN,result=ok,service=submission,why=} 1.0",
        "sasld_auth_attempts_total{mechanism=PLAIN,result=refused,service=other,why=wrong_password} 2.0",
        "sasld_auth_attempts_total{mechanism=,result=refused,service=other,why=mechanism} 1.0",
        "sasld_auth_decision_seconds_bucket{le=+Inf,mechanism=PLAIN} 4.0",
        "sasld_auth_decision_seconds_count{mechanism=PLAIN} 4.0",
        "sasld_connections{} 1.0",
        "sasld_configuration_rejected{} 0.0",
    ] {
        assert!(samples.iter().any(|sample| sample == expected), "no {expected} in\n{body}");
    }
    let up = format!("sasld_passdb_up{{passdb=secrets_file {}}} 1.0", dir.path().join("secrets").display());
    assert!(samples.contains(&up), "no {up} in\n{body}");
    let (head, _) = get(UnixStream::connect(&socket).unwrap(), "/");
    assert!(head.starts_with("HTTP/1.0 404 "), "{head}");
}

#[test]
fn a_port_serves_the_same() {
    let dir = directory();
    // Free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let sasld = start(&dir, ALICE, &format!("metrics: {{tcp: 127.0.0.1:{port}}}\n"));
    let (head, body) = get(TcpStream::connect(("127.0.0.1", port)).unwrap(), "/metrics");
    assert!(head.starts_with("HTTP/1.0 200 OK"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let control: Metrics = ask(&sasld.control(), &Request::Metrics).unwrap();
    assert_eq!(names(&control.openmetrics), names(&body), "the control socket has them, too");
}

#[test]
fn a_port_that_is_taken_keeps_nobody_from_logging_in() {
    let dir = directory();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let sasld = start(&dir, ALICE, &format!("metrics: {{tcp: '{address}'}}\n"));
    sasld.log.wait_for(&["event=metrics_not_available", "another server listens there already"]);
    let mut peer = Peer::greeted(&sasld.socket());
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(peer.line(), "OK\t1\tuser=alice");
}

/// The names under which the samples of an exposition appear, from its TYPE lines.
fn names(exposition: &str) -> BTreeSet<String> {
    let types = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let sample = |(name, kind): (&str, &str)| {
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect::<Vec<_>>()
    };
    types.flat_map(sample).collect()
}

fn repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every word of a text that looks like a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("sasld_")).map(str::to_owned).collect()
}

#[test]
fn dashboard_alerts_and_documentation_name_the_metrics_there_are() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let there_are: Metrics = ask(&sasld.control(), &Request::Metrics).unwrap();
    let there_are = names(&there_are.openmetrics);

    let dashboard = repository("packaging/grafana/sasld.json");
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = parsed["panels"].as_array().unwrap();
    assert!(panels.iter().all(|panel| panel["targets"][0]["expr"].is_string()), "{panels:?}");
    let rules = repository("packaging/prometheus/sasld.rules.yaml");
    for (name, text) in [("dashboard", &dashboard), ("rules", &rules)] {
        let named = metrics_in(text);
        assert!(named.len() > 5, "{name}: {named:?}");
        assert_eq!(named.difference(&there_are).collect::<Vec<_>>(), Vec::<&String>::new(), "{name}");
    }
    let documented = metrics_in(&repository("docs/control.md"));
    // A histogram's three names are one there.
    let base = |name: &String| {
        name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count").to_owned()
    };
    let ours: BTreeSet<String> =
        there_are.iter().filter(|name| name.starts_with("sasld_")).map(base).collect();
    assert_eq!(documented, ours);
}
