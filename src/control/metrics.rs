//! The status and the counts as OpenMetrics text, for `metrics:`.
//!
//! Labels are words of sasld or of its configuration. Users, addresses and whatever else a stranger can choose are
//! never one: a service without a section of its own is `other`. `docs/control.md` lists the metrics.

use super::reply::{PassdbState, Status};
use super::report::Counted;
use crate::tally::counts::BUCKETS;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::time::SystemTime;

/// What a scrape gets.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// A number of one passdb; `None` for those of another kind.
type Value = fn(&PassdbState) -> Option<i64>;

/// The whole exposition.
pub(super) fn text(status: &Status, counted: Counted) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { status: status.clone(), counted }));
    let mut text = String::new();
    // Writing into a String does not fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Everything of one moment.
#[derive(Debug)]
struct Scrape {
    status: Status,
    counted: Counted,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let Self { status, .. } = self;
        encoder
            .encode_descriptor("sasld_build", "The daemon", None, MetricType::Info)?
            .encode_info(&[("version", status.version.as_str())])?;
        self.attempts(encoder)?;
        self.times(encoder)?;
        let missing = status.listeners.iter().filter(|listener| !listener.in_place).count();
        let configuration = &status.configuration;
        for (name, help, value) in [
            ("sasld_connections", "Open connections of mail servers", gauge(status.connections)),
            ("sasld_exchanges", "Exchanges without a final reply", gauge(status.exchanges)),
            ("sasld_hash_threads", "Threads for expensive hashes", gauge(status.hash_pool.threads)),
            ("sasld_hash_queue", "Passwords that wait for one", gauge(status.hash_pool.waiting)),
            (
                "sasld_configuration_rejected",
                "1: the last reload was rejected",
                i64::from(configuration.rejected.is_some()),
            ),
            (
                "sasld_configuration_last_good",
                "1: the last good copy is in force",
                i64::from(configuration.last_good),
            ),
            ("sasld_listeners_missing", "Sockets whose file has gone", gauge(missing)),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        for (name, help, time) in [
            ("process_start_time", "When it started, since 1970", &status.since),
            (
                "sasld_configuration_in_force_time",
                "When the configuration in force was read, since 1970",
                &configuration.in_force_since,
            ),
        ] {
            let mut metric =
                encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            metric.encode_gauge(&unix_seconds(time))?;
        }
        self.passdbs(encoder)
    }
}

impl Scrape {
    fn attempts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut attempts = encoder.encode_descriptor(
            "sasld_auth_attempts",
            "Attempts that are over, by the words of the log",
            None,
            MetricType::Counter,
        )?;
        for (label, count) in &self.counted.by_label {
            let labels: Labels = vec![
                ("result", label.result.to_owned()),
                ("why", label.why.unwrap_or_default().to_owned()),
                ("mechanism", label.mechanism.unwrap_or_default().to_owned()),
                ("service", label.service.clone().unwrap_or_else(|| "other".to_owned())),
            ];
            attempts.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        Ok(())
    }

    fn times(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut times = encoder.encode_descriptor(
            "sasld_auth_decision",
            "From the user's last message to the verdict, when a passdb was asked",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (mechanism, histogram) in &self.counted.times {
            let bounds = BUCKETS.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets).collect();
            let count = histogram.buckets.iter().sum();
            times.encode_family(&vec![("mechanism", mechanism.name())])?.encode_histogram::<NoLabelSet>(
                histogram.sum.as_secs_f64(),
                count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn passdbs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let per_passdb: [(&str, &str, Value); 6] = [
            ("sasld_passdb_up", "1: it can answer", |passdb| Some(i64::from(is_up(passdb)))),
            ("sasld_passdb_trouble", "1: the secrets file that is there now is not in force", |passdb| {
                match passdb {
                    PassdbState::SecretsFile(file) => Some(i64::from(file.trouble.is_some())),
                    PassdbState::Pam(_) => None,
                }
            }),
            ("sasld_secrets_users", "Users in the secrets file", |passdb| match passdb {
                PassdbState::SecretsFile(file) => Some(gauge(file.users)),
                PassdbState::Pam(_) => None,
            }),
            ("sasld_secrets_problems", "Broken lines in the secrets file", |passdb| match passdb {
                PassdbState::SecretsFile(file) => Some(gauge(file.problems_total)),
                PassdbState::Pam(_) => None,
            }),
            ("sasld_pam_workers", "Workers of sasld-pam", |passdb| match passdb {
                PassdbState::SecretsFile(_) => None,
                PassdbState::Pam(pam) => Some(gauge(pam.workers)),
            }),
            ("sasld_pam_queue", "Passwords that wait for one", |passdb| match passdb {
                PassdbState::SecretsFile(_) => None,
                PassdbState::Pam(pam) => Some(gauge(pam.waiting)),
            }),
        ];
        for (name, help, value) in per_passdb {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for passdb in &self.status.passdbs {
                if let Some(value) = value(passdb) {
                    let labels: Labels = vec![("passdb", passdb_name(passdb))];
                    metric.encode_family(&labels)?.encode_gauge(&value)?;
                }
            }
        }
        Ok(())
    }
}

/// Its key in the configuration, and which one.
fn passdb_name(passdb: &PassdbState) -> String {
    match passdb {
        PassdbState::SecretsFile(file) => format!("secrets_file {}", file.path),
        PassdbState::Pam(pam) => format!("pam {}", pam.service),
    }
}

fn is_up(passdb: &PassdbState) -> bool {
    match passdb {
        PassdbState::SecretsFile(file) => file.in_force.is_some(),
        PassdbState::Pam(pam) => pam.connected,
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unix_seconds(time: &str) -> f64 {
    let time = humantime::parse_rfc3339(time).unwrap_or(SystemTime::UNIX_EPOCH);
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
