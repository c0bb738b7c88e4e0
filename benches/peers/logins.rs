//! Logins that cost next to nothing but the protocol: CPU time, throughput and latency.
//!
//! All servers run side by side for the whole scenario; the client visits them in turn, round after round, so that
//! whatever else the machine does falls on all of them. A server that is not visited sleeps.

use std::time::Duration;

use crate::{
    Bench, Outcome,
    dialog::Mechanism,
    load::{Load, Measured},
    measure::bound_to,
    series::Results,
    server::{Kind, Server},
    table::Table,
};

const PEERS: [Kind; 3] = [Kind::Sasld, Kind::Dovecot, Kind::Floor];

/// CPU time and throughput with 100 connections and 1,000 users.
pub fn cpu_and_throughput(bench: &Bench) -> Outcome<Vec<Table>> {
    let cores = &bench.cores;
    let mut cpu = Table::new(
        "CPU time per login",
        "Microseconds of CPU time of all the server's processes per login. 100 connections, 1,000 users, the server \
         bound to one core and the client to another.",
        &[
            "mechanism",
            "sasld",
            "Dovecot",
            "floor",
            "Dovecot ÷ sasld",
            "sasld ÷ floor",
            "sasld's logins per CPU second",
        ],
    );
    let mut throughput = Table::new(
        "Throughput",
        "Logins per second in the same setting, and with server and client free to run on every core, where they share \
         them. *Cores* is how many the server kept busy.",
        &[
            "mechanism",
            "server",
            "one core",
            "all cores",
            "growth",
            "cores, one",
            "cores, all",
        ],
    );
    for mechanism in Mechanism::ALL {
        let load = hundred_connections(bench, mechanism);
        let mut micros = Results::default();
        let mut one_core = Throughput::default();
        let servers = bench.start(&PEERS, cores.server(), mechanism.challenges())?;
        in_turn(bench, &servers, &load, cores.client(), |kind, measured| {
            micros.of(kind).push_micros(measured.cpu_per_login());
            one_core.add(kind, measured);
        })?;
        drop(servers);
        let per_cpu_second = micros
            .sasld
            .median()
            .map_or("–".to_owned(), |micros| format!("{:.0}", 1e6 / micros));
        cpu.row([
            mechanism.name().to_owned(),
            micros.sasld.cell(2),
            micros.dovecot.cell(2),
            micros.floor.cell(2),
            micros.dovecot.ratio(&micros.sasld).at_least(6.0, 1),
            micros.sasld.ratio(&micros.floor).at_most(2.0, 2),
            per_cpu_second,
        ]);

        let mut all_cores = Throughput::default();
        let kinds = &[Kind::Sasld, Kind::Dovecot];
        let servers = bench.start(kinds, cores.all(), mechanism.challenges())?;
        in_turn(bench, &servers, &load, cores.all(), |kind, measured| {
            all_cores.add(kind, measured)
        })?;
        for kind in bench.kinds(kinds) {
            throughput.row([
                mechanism.name().to_owned(),
                kind.name().to_owned(),
                one_core.per_second.of(kind).cell(0),
                all_cores.per_second.of(kind).cell(0),
                all_cores
                    .per_second
                    .of(kind)
                    .ratio(one_core.per_second.of(kind))
                    .cell(2),
                one_core.cores.of(kind).cell(2),
                all_cores.cores.of(kind).cell(2),
            ]);
        }
    }
    Ok(vec![cpu, throughput])
}

#[derive(Default)]
struct Throughput {
    per_second: Results,
    cores: Results,
}

impl Throughput {
    fn add(&mut self, kind: Kind, measured: &Measured) {
        self.per_second.of(kind).push(measured.logins_per_second());
        self.cores.of(kind).push(measured.cores());
    }
}

/// Latency with one connection and with 1,000.
pub fn latency(bench: &Bench) -> Outcome<Vec<Table>> {
    let mut table = Table::new(
        "Latency",
        "Microseconds from the first byte of a login sent to the last byte of its verdict read, server and client on a \
         core each. With 1,000 connections every one of them has a login in flight all the time, so the time is spent \
         waiting in line.",
        &[
            "mechanism",
            "connections",
            "",
            "sasld",
            "Dovecot",
            "floor",
            "ratio",
        ],
    );
    for mechanism in [Mechanism::Plain, Mechanism::CramMd5] {
        let servers = bench.start(&PEERS, bench.cores.server(), mechanism.challenges())?;

        let one = Load {
            connections: 1,
            max_logins: 50_000,
            ..hundred_connections(bench, mechanism)
        };
        let mut p50 = Results::default();
        in_turn(
            bench,
            &servers,
            &one,
            bench.cores.client(),
            |kind, measured| {
                p50.of(kind).push_micros(measured.latency.percentile(50.0));
            },
        )?;
        let ratio = p50.sasld.ratio(&p50.floor).at_most(1.5, 2);
        table.row(latency_row(
            mechanism,
            "1",
            "p50",
            &p50,
            format!("sasld ÷ floor {ratio}"),
        ));

        let thousand = Load {
            connections: 1000,
            ..hundred_connections(bench, mechanism)
        };
        let mut p99 = Results::default();
        in_turn(
            bench,
            &servers,
            &thousand,
            bench.cores.client(),
            |kind, measured| {
                p99.of(kind).push_micros(measured.latency.percentile(99.0));
            },
        )?;
        let ratio = p99.dovecot.ratio(&p99.sasld).at_least(5.0, 1);
        table.row(latency_row(
            mechanism,
            "1,000",
            "p99",
            &p99,
            format!("Dovecot ÷ sasld {ratio}"),
        ));
    }
    Ok(vec![table])
}

fn latency_row(
    mechanism: Mechanism,
    connections: &str,
    what: &str,
    micros: &Results,
    ratio: String,
) -> [String; 7] {
    [
        mechanism.name().to_owned(),
        connections.to_owned(),
        what.to_owned(),
        micros.sasld.cell(0),
        micros.dovecot.cell(0),
        micros.floor.cell(0),
        ratio,
    ]
}

fn hundred_connections(bench: &Bench, mechanism: Mechanism) -> Load<'_> {
    Load {
        mechanism,
        users: &bench.users,
        connections: 100,
        warm_up: bench.effort.window / 4,
        window: bench.effort.window,
        max_logins: u64::MAX,
        pace: None,
    }
}

/// Visits the servers in turn for as many rounds as the effort says.
fn in_turn(
    bench: &Bench,
    servers: &[Server],
    load: &Load<'_>,
    client_cores: &[usize],
    mut each: impl FnMut(Kind, &Measured),
) -> Outcome<()> {
    bound_to(client_cores, || {
        for _ in 0..bench.effort.rounds {
            for server in servers {
                each(server.kind, &load.run(server)?);
            }
        }
        Ok(())
    })
}

/// Milliseconds with one decimal.
pub fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}
