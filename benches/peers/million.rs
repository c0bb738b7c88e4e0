//! A very large secrets file: how long until it serves, what it takes in memory, and who notices a reload.
//!
//! The file that is swapped in differs in one password; that the new one is accepted after the run proves that the
//! reload happened inside it, and if it did not the run is an error. Requests refused or dropped during it would be one
//! too. The slowest request of a run of the same length without a reload stands beside the result.

use std::time::{Duration, Instant};

use crate::{
    Bench, Outcome,
    connection::{Connection, Progress},
    dialog::{Mechanism, User},
    interrupt,
    load::{Load, Measured},
    series::{Results, judged},
    server::{Kind, Server},
    table::Table,
};

const PEERS: [Kind; 2] = [Kind::Sasld, Kind::Dovecot];
const MIB: f64 = 1024.0 * 1024.0;
/// Longest time until a server with the large file lets its first user in.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn load_and_reload(bench: &Bench) -> Outcome<Vec<Table>> {
    let count = bench.effort.many_users;
    let file = secrets(count, None);
    let size = file.len() as f64 / MIB;
    let users: Vec<User> = (0..1000).map(|n| User::numbered(n * (count / 1000))).collect();
    // A user that the load does not use, and the password the second file has for it.
    let probe = User::numbered(count / 2 + 1);
    let changed = User::new(probe.name.clone(), "changed".to_owned());
    let reloaded_file = secrets(count, Some(&changed));

    let mut results = Million::default();
    for kind in bench.kinds(&PEERS) {
        let memory_before = {
            let server = kind.start(&bench.secrets, bench.cores.all(), 0)?;
            first_login(&server, &bench.users[0])?;
            server.processes()?.memory(false)?
        };
        let server = kind.start(&file, bench.cores.all(), 0)?;
        first_login(&server, &probe)?;
        results.wall.push(kind, server.started.elapsed().as_secs_f64());
        let processes = server.processes()?;
        results.cpu.push(kind, processes.cpu()?.as_secs_f64());
        let growth = processes.memory(false)? as f64 - memory_before as f64;
        results.memory.push(kind, growth / MIB / size);

        let quiet = run(bench, &users, &server, || Ok(()))?;
        results.slowest_quiet.push_millis(kind, quiet.latency.slowest());
        server.prepare_secrets(&reloaded_file)?;
        let reload = run(bench, &users, &server, || server.reload())?;
        if !is_accepted(&server, &changed)? {
            return Err(format!("{} did not reload while it was measured", kind.name()).into());
        }
        results.slowest_reload.push_millis(kind, reload.latency.slowest());
    }
    Ok(vec![results.table(count, size)])
}

#[derive(Default)]
struct Million {
    wall: Results,
    cpu: Results,
    memory: Results,
    slowest_quiet: Results,
    slowest_reload: Results,
}

impl Million {
    fn table(&self, count: usize, size: f64) -> Table {
        let mut table = Table::new(
            "A large secrets file",
            format!(
                "{count} users, {size:.1} MiB. The load is 100 connections that log in by PLAIN without a pause, server \
                 and client free to run on all cores; another thread replaces the file (rename, SIGHUP for sasld) in its \
                 middle. The old file stays linked: letting go of it is not measured."
            ),
            &["", "sasld", "Dovecot", "goal for sasld"],
        );
        let mut row = |what: &str, results: &Results, goal: Option<(f64, &str)>| {
            let ours = results.of(Kind::Sasld);
            let judgement = goal.map_or(String::new(), |(goal, unit)| {
                let met = ours.median().map(|median| median <= goal);
                judged("", &format!("≤ {goal}{unit}"), met)
            });
            table.row([what.to_owned(), ours.cell(2), results.of(Kind::Dovecot).cell(2), judgement]);
        };
        row("exec to first user let in, s", &self.wall, None);
        row("CPU time by then, s", &self.cpu, Some((1.0, " s")));
        row("growth of resident memory ÷ size of the file", &self.memory, Some((1.5, "")));
        row("slowest request under load, ms", &self.slowest_quiet, None);
        row("slowest request with a reload, ms", &self.slowest_reload, Some((20.0, " ms")));
        table
    }
}

/// A secrets file with `count` users; `changed` has another password than its number says.
fn secrets(count: usize, changed: Option<&User>) -> Vec<u8> {
    let mut file = Vec::with_capacity(count * 56);
    for n in 0..count {
        let user = User::numbered(n);
        let line = match changed {
            Some(changed) if changed.name == user.name => changed.secrets_line(),
            _ => user.secrets_line(),
        };
        file.extend_from_slice(line.as_bytes());
    }
    file
}

/// The whole load, with `disturb` in its first quarter. Right passwords refused are an error.
fn run(
    bench: &Bench,
    users: &[User],
    server: &Server,
    disturb: impl FnOnce() -> Outcome<()> + Send,
) -> Outcome<Measured> {
    let window = bench.effort.window * 6;
    let load = Load {
        mechanism: Mechanism::Plain,
        users,
        connections: 100,
        warm_up: bench.effort.window / 4,
        window,
        max_logins: u64::MAX,
        stop: None,
        pace: None,
    };
    let measured = load.run_disturbed(server, window / 4, disturb)?;
    if measured.refused > 0 {
        return Err(format!("{} refused {} right passwords", server.kind.name(), measured.refused).into());
    }
    Ok(measured)
}

/// Tries until the user is let in. No verdict and a wrong verdict both mean that the file is not loaded yet.
fn first_login(server: &Server, user: &User) -> Outcome<()> {
    let begun = Instant::now();
    while !is_accepted(server, user).unwrap_or(false) {
        interrupt::check()?;
        if begun.elapsed() > PATIENCE {
            return Err(format!("{} lets nobody in", server.kind.name()).into());
        }
    }
    Ok(())
}

fn is_accepted(server: &Server, user: &User) -> Outcome<bool> {
    let mut connection = Connection::open(&server.socket, std::process::id())?;
    connection.begin(user, Mechanism::Plain, Instant::now())?;
    loop {
        match connection.advance(None)? {
            Progress::Accepted { .. } => return Ok(true),
            Progress::Refused { .. } => return Ok(false),
            Progress::Waiting => std::thread::yield_now(),
        }
    }
}
