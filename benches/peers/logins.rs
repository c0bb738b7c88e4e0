//! Logins that cost next to nothing but the protocol: CPU time, throughput and latency.
//!
//! All servers run side by side for the whole scenario; the client visits them in turn, round after round, so that
//! whatever else the machine does falls on all of them. A server that is not visited sleeps.

use crate::{
    Bench, Outcome,
    dialog::Mechanism,
    load::{Load, Measured},
    measure::bound_to,
    series::Results,
    server::{Kind, Server},
    table::Table,
};

const PEERS: [Kind; 4] = [Kind::Sasld, Kind::Dovecot, Kind::DovecotNoPenalty, Kind::Floor];

/// CPU time and throughput with 100 connections and 1,000 users.
pub fn cpu_and_throughput(bench: &Bench) -> Outcome<Vec<Table>> {
    let mut cpu = Table::new(
        "CPU time per login",
        "CPU time of all the server's processes per login, in microseconds; its reciprocal; and its ratios, taken round \
         by round. 100 connections, 1,000 users, the server bound to one core and the client to another.",
        &[
            "mechanism",
            "server",
            "CPU µs per login",
            "logins per CPU second",
            "Dovecot ÷ this",
            "this ÷ floor",
        ],
    );
    let mut throughput = Table::new(
        "Throughput",
        "Logins per second in the same setting, and with the server and a client thread per core free to run on every \
         core, which they then share. *Busy* is how many cores the server used. The floor shows what the client could ask for.",
        &["mechanism", "server", "one core", "busy", "all cores", "busy", "all ÷ one"],
    );
    for mechanism in Mechanism::ALL {
        let load = hundred_connections(bench, mechanism);
        let one_core = Throughput::measure(bench, &PEERS, &load, bench.cores.server(), bench.cores.client())?;
        for kind in bench.kinds(&PEERS) {
            let micros = one_core.cpu_micros.of(kind);
            let to_dovecot = one_core.cpu_micros.of(Kind::Dovecot).ratio(&micros);
            let to_floor = micros.ratio(&one_core.cpu_micros.of(Kind::Floor));
            let is_sasld = kind == Kind::Sasld;
            cpu.row([
                mechanism.name().to_owned(),
                kind.name().to_owned(),
                micros.cell(2),
                micros.median().map_or(String::new(), |micros| format!("{:.0}", 1e6 / micros)),
                if is_sasld { to_dovecot.at_least(6.0, 1) } else { to_dovecot.cell(1) },
                if is_sasld { to_floor.at_most(2.0, 2) } else { to_floor.cell(2) },
            ]);
        }

        let kinds = [Kind::Sasld, Kind::Dovecot];
        let all_cores = Throughput::measure(bench, &kinds, &load, bench.cores.all(), bench.cores.all())?;
        for kind in bench.kinds(&[Kind::Sasld, Kind::Dovecot, Kind::Floor]) {
            let (one, all) = (one_core.per_second.of(kind), all_cores.per_second.of(kind));
            throughput.row([
                mechanism.name().to_owned(),
                kind.name().to_owned(),
                one.cell(0),
                one_core.busy.of(kind).cell(2),
                all.cell(0),
                all_cores.busy.of(kind).cell(2),
                if kind == Kind::Sasld { all.ratio(&one).at_least(1.0, 2) } else { all.ratio(&one).cell(2) },
            ]);
        }
    }
    Ok(vec![cpu, throughput])
}

#[derive(Default)]
struct Throughput {
    cpu_micros: Results,
    per_second: Results,
    busy: Results,
}

impl Throughput {
    fn measure(
        bench: &Bench,
        kinds: &[Kind],
        load: &Load<'_>,
        server_cores: &[usize],
        client_cores: &[usize],
    ) -> Outcome<Self> {
        let servers = bench.start(kinds, server_cores, load.mechanism.challenges())?;
        let mut throughput = Self::default();
        in_turn(bench, &servers, load, client_cores, |kind, measured| {
            throughput.cpu_micros.push_micros(kind, measured.cpu_per_login());
            throughput.per_second.push(kind, measured.logins_per_second());
            throughput.busy.push(kind, measured.busy_cores());
        })?;
        Ok(throughput)
    }
}

/// Latency with one connection and with 1,000.
pub fn latency(bench: &Bench) -> Outcome<Vec<Table>> {
    let mut table = Table::new(
        "Latency",
        "Microseconds from the first byte of a login sent to the last byte of its verdict read, server and client on a \
         core each. With 1,000 connections every one of them has a login in flight all the time, so most of it is \
         waiting in line.",
        &["mechanism", "connections", "", "sasld", "Dovecot", "Dovecot, no penalty", "floor", "ratio"],
    );
    for mechanism in [Mechanism::Plain, Mechanism::CramMd5] {
        let servers = bench.start(&PEERS, bench.cores.server(), mechanism.challenges())?;

        let one = Load { connections: 1, max_logins: 50_000, ..hundred_connections(bench, mechanism) };
        let p50 = percentile(bench, &servers, &one, 50.0)?;
        let ratio = p50.of(Kind::Sasld).ratio(&p50.of(Kind::Floor)).at_most(1.5, 2);
        table.row(latency_row(mechanism, "1", "p50", &p50, format!("sasld ÷ floor {ratio}")));

        let thousand = Load { connections: 1000, ..hundred_connections(bench, mechanism) };
        let p99 = percentile(bench, &servers, &thousand, 99.0)?;
        let ratio = p99.of(Kind::Dovecot).ratio(&p99.of(Kind::Sasld)).at_least(5.0, 1);
        table.row(latency_row(mechanism, "1,000", "p99", &p99, format!("Dovecot ÷ sasld {ratio}")));
    }
    Ok(vec![table])
}

fn percentile(bench: &Bench, servers: &[Server], load: &Load<'_>, percent: f64) -> Outcome<Results> {
    let mut micros = Results::default();
    in_turn(bench, servers, load, bench.cores.client(), |kind, measured| {
        micros.push_micros(kind, measured.latency.percentile(percent));
    })?;
    Ok(micros)
}

fn latency_row(
    mechanism: Mechanism,
    connections: &str,
    what: &str,
    micros: &Results,
    ratio: String,
) -> Vec<String> {
    let mut row = vec![mechanism.name().to_owned(), connections.to_owned(), what.to_owned()];
    row.extend(PEERS.map(|kind| micros.of(kind).cell(0)));
    row.push(ratio);
    row
}

fn hundred_connections(bench: &Bench, mechanism: Mechanism) -> Load<'_> {
    Load {
        mechanism,
        users: &bench.users,
        connections: 100,
        warm_up: bench.effort.window / 4,
        window: bench.effort.window,
        max_logins: u64::MAX,
        stop: None,
        pace: None,
    }
}

/// Visits the servers in turn for as many rounds as the effort says, with one client thread per core.
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
                each(server.kind, &load.run_on_threads(server, client_cores.len())?);
            }
        }
        Ok(())
    })
}
