//! What a server takes when it has little to do: memory at rest, memory per idle connection, time to its first greeting.
//!
//! Memory is what the kernel counts as resident. Socket buffers are the kernel's own and counted nowhere here; they are
//! the same for every server.

use std::process;

use crate::{
    Bench, Outcome,
    connection::Connection,
    measure::bound_to,
    series::{Results, judged},
    server::{Kind, Server},
    table::Table,
};

const PEERS: [Kind; 2] = [Kind::Sasld, Kind::Dovecot];
const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;

pub fn connections_and_start(bench: &Bench) -> Outcome<Vec<Table>> {
    let mut first_greeting = Results::default();
    for _ in 0..bench.effort.starts {
        for kind in bench.kinds(&PEERS) {
            let server =
                bound_to(bench.cores.client(), || kind.start(&bench.secrets, bench.cores.server(), 0))?;
            first_greeting.push_millis(kind, server.greeted_after);
        }
    }

    let mut rest = Results::default();
    let mut rest_shared_once = Results::default();
    let mut per_connection = Results::default();
    for server in bench.start(&PEERS, bench.cores.all(), 0)? {
        let at_rest = server.processes()?;
        rest.push(server.kind, at_rest.memory(false)? as f64 / MIB);
        rest_shared_once.push(server.kind, at_rest.memory(true)? as f64 / MIB);
        per_connection.push(server.kind, memory_per_connection(bench, &server)? / KIB);
    }

    let mut table = Table::new(
        "Memory and start",
        format!(
            "1,000 users. {} idle connections that have shaken hands; {} starts, from exec to the last byte of the \
             greeting. Dovecot is several processes: its resident memory counts shared pages once for each.",
            bench.effort.idle_connections, bench.effort.starts
        ),
        &["", "sasld", "Dovecot", "goal for sasld"],
    );
    let mut row = |what: &str, results: &Results, goal: f64, unit: &str| {
        let ours = results.of(Kind::Sasld);
        let met = ours.median().map(|median| median <= goal);
        let goal = judged("", &format!("≤ {goal} {unit}"), met);
        table.row([what.to_owned(), ours.cell(1), results.of(Kind::Dovecot).cell(1), goal]);
    };
    row("resident at rest, MiB", &rest, 8.0, "MiB");
    row("the same, shared pages divided (PSS), MiB", &rest_shared_once, 8.0, "MiB");
    row("resident per idle connection, KiB", &per_connection, 4.0, "KiB");
    row("exec to first greeting, ms", &first_greeting, 30.0, "ms");
    Ok(vec![table])
}

/// Bytes, averaged over all of them.
fn memory_per_connection(bench: &Bench, server: &Server) -> Outcome<f64> {
    let before = server.processes()?.memory(false)?;
    let count = bench.effort.idle_connections;
    let mut connections = Vec::with_capacity(count);
    for index in 0..count {
        let cpid = process::id() + u32::try_from(index)?;
        connections.push(Connection::open(&server.socket, cpid)?);
    }
    let after = server.processes()?.memory(false)?;
    Ok((after as f64 - before as f64) / count as f64)
}
