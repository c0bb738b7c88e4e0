//! What a login is made of: system calls, times asleep, allocations, instructions. Counts, which come out the same on a
//! busy machine.
//!
//! strace(1) counts the calls, the kernel how often a thread of the server gave its core away to wait, and valgrind(1) what
//! the program does itself: allocations with DHAT, instructions with Cachegrind. Valgrind starts the program, so two runs
//! of different length tell what a login costs and what the start does. One connection, one login after the other, as
//! a smtpd has them.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    Bench, Outcome,
    dialog::Mechanism,
    echo,
    load::Load,
    sasld,
    server::{Kind, Plan, Server},
    table::Table,
};

const PEERS: [Kind; 4] = [Kind::Sasld, Kind::Dovecot, Kind::DovecotNoPenalty, Kind::Floor];

/// Rarer calls than this per login are the start of the connection, or once a second.
const WORTH_NAMING: f64 = 0.01;

pub fn calls_allocations_instructions(bench: &Bench) -> Outcome<Vec<Table>> {
    let mut table = Table::new(
        "What a login is made of",
        format!(
            "Per login, of {} on one connection, one after the other. *Asleep* is how often a thread of the server waited for \
             something; allocations and instructions are those of the program itself, in user space.",
            bench.effort.counted_logins
        ),
        &["mechanism", "server", "system calls", "which", "asleep", "allocations", "instructions"],
    );
    for mechanism in Mechanism::ALL {
        for kind in bench.kinds(&PEERS) {
            let load = one_by_one(bench, mechanism, bench.effort.counted_logins);
            let asleep = times_asleep(bench, kind, &load)?;
            let calls = system_calls(bench, kind, &load)?;
            let named = calls.iter().filter(|(_, count)| **count >= WORTH_NAMING);
            let named: Vec<String> = named.map(|(name, count)| format!("{name} {count:.2}")).collect();
            let mut row = vec![
                mechanism.name().to_owned(),
                kind.name().to_owned(),
                format!("{:.2}", calls.values().sum::<f64>()),
                named.join(", "),
                format!("{asleep:.2}"),
            ];
            if matches!(kind, Kind::Sasld | Kind::Floor) {
                row.push(format!("{:.2}", per_login(bench, kind, mechanism, &DHAT)?));
                row.push(format!("{:.0}", per_login(bench, kind, mechanism, &CACHEGRIND)?));
            } else {
                row.extend(["–".to_owned(), "–".to_owned()]);
            }
            table.row(row);
        }
    }
    Ok(vec![table])
}

fn one_by_one(bench: &Bench, mechanism: Mechanism, logins: u64) -> Load<'_> {
    Load {
        mechanism,
        users: &bench.users,
        connections: 1,
        warm_up: Duration::ZERO,
        window: Duration::from_secs(600),
        max_logins: logins,
        stop: None,
        pace: None,
    }
}

fn start(bench: &Bench, kind: Kind, mechanism: Mechanism) -> Outcome<Server> {
    kind.start(&bench.secrets, bench.cores.server(), mechanism.challenges())
}

fn times_asleep(bench: &Bench, kind: Kind, load: &Load<'_>) -> Outcome<f64> {
    let server = start(bench, kind, load.mechanism)?;
    let before = voluntary_switches(&server)?;
    let logins = load.run(&server)?.logins;
    Ok((voluntary_switches(&server)? - before) as f64 / logins as f64)
}

fn voluntary_switches(server: &Server) -> Outcome<u64> {
    let mut switches = 0;
    for pid in server.processes()?.pids() {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            switches += line.ok_or("no voluntary_ctxt_switches in /proc")?.trim().parse::<u64>()?;
        }
    }
    Ok(switches)
}

/// Each call by its name, per login.
fn system_calls(bench: &Bench, kind: Kind, load: &Load<'_>) -> Outcome<BTreeMap<String, f64>> {
    let server = start(bench, kind, load.mechanism)?;
    let dir = TempDir::with_prefix("sasld-bench-")?;
    let summary = dir.path().join("strace");
    let processes = server.processes()?;
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(&summary);
    for pid in processes.pids() {
        strace.arg("-p").arg(pid.to_string());
    }
    let mut strace = strace.stderr(Stdio::piped()).spawn()?;
    let mut told = BufReader::new(strace.stderr.take().ok_or("no standard error")?).lines();
    for _ in processes.pids() {
        let line = told.next().ok_or("strace ended")??;
        if !line.contains("attached") {
            return Err(format!("strace: {line}").into());
        }
    }
    let logins = load.run(&server)?.logins;
    kill(Pid::from_raw(i32::try_from(strace.id())?), Signal::SIGINT)?;
    told.for_each(drop);
    strace.wait()?;
    let rows = fs::read_to_string(summary)?;
    // % time, seconds, µs per call, calls, perhaps errors, name.
    let counts = rows.lines().filter_map(|row| {
        let fields: Vec<&str> = row.split_whitespace().collect();
        let (calls, name) = (fields.get(3)?.parse::<f64>().ok()?, *fields.last()?);
        (name != "total").then(|| (name.to_owned(), calls / logins as f64))
    });
    Ok(counts.collect())
}

/// A tool of valgrind's, and where it says what it has counted.
struct Tool {
    arguments: &'static [&'static str],
    before: &'static str,
    /// Which word behind that, from 0.
    word: usize,
}

/// `Total: 12,345 bytes in 678 blocks`
const DHAT: Tool =
    Tool { arguments: &["--tool=dhat", "--dhat-out-file=/dev/null"], before: "Total:", word: 3 };

/// `I refs: 12,345`
const CACHEGRIND: Tool = Tool {
    arguments: &["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"],
    before: "refs:",
    word: 0,
};

/// What the tool counts for a login: the difference between many logins and few.
fn per_login(bench: &Bench, kind: Kind, mechanism: Mechanism, tool: &Tool) -> Outcome<f64> {
    let many = bench.effort.counted_logins;
    let few = many / 10;
    let more = counted(bench, kind, mechanism, tool, many)? - counted(bench, kind, mechanism, tool, few)?;
    Ok(more / (many - few) as f64)
}

fn counted(bench: &Bench, kind: Kind, mechanism: Mechanism, tool: &Tool, logins: u64) -> Outcome<f64> {
    let (dir, log) = (TempDir::with_prefix("sasld-bench-")?, TempDir::with_prefix("sasld-bench-")?);
    let Plan { command, socket } = match kind {
        Kind::Floor => echo::plan(dir.path(), mechanism.challenges())?,
        _ => sasld::plan(dir.path(), &bench.secrets)?,
    };
    let log = log.path().join("valgrind");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(tool.arguments).arg(format!("--log-file={}", log.display()));
    valgrind.arg(command.get_program()).args(command.get_args());
    let server = Server::launch(kind, dir, Plan { command: valgrind, socket }, bench.cores.all())?;
    one_by_one(bench, mechanism, logins).run(&server)?;
    drop(server);
    number(&log, tool)
}

fn number(log: &Path, tool: &Tool) -> Outcome<f64> {
    let text = fs::read_to_string(log)?;
    let said = text.lines().find_map(|line| line.split_once(tool.before));
    let word = said.and_then(|(_, rest)| rest.split_whitespace().nth(tool.word));
    let word = word.ok_or_else(|| format!("valgrind has not said {:?}:\n{text}", tool.before))?;
    Ok(word.replace(',', "").parse()?)
}
