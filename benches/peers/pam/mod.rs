//! System passwords: sasld, Dovecot and saslauthd ask the same PAM stack about the same user.
//!
//! One server at a time, with server and clients on all cores, for a password check is long and the client's part
//! small. First each server alone: how many right passwords a second, and what a single login takes. Then the siege:
//! 100 connections that try wrong passwords, and honest users between them. A server that refuses a right password is a
//! result here, in a column of its own; one that accepts a wrong one ends the run.

mod caller;
mod place;
mod siege;

pub use place::check_rights;

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use self::{
    caller::{Caller, Door, Verdict},
    siege::{Felt, Siege, Visitor, Visits},
};
use crate::{
    Bench, Outcome,
    histogram::Histogram,
    interrupt,
    measure::bound_to,
    series::judged,
    server::{Kind, Server},
    table::Table,
};

pub const SCENARIO: &str = "pam";

/// How long things take, for each server.
pub struct Effort {
    /// Right passwords, as many as fit.
    throughput: Duration,
    /// Logins of one kind of user, one after the other.
    alone: Duration,
    /// How long the guessers are alone.
    warm_up: Duration,
    /// How long honest users come.
    window: Duration,
    /// From the window's opening to the last answer waited for.
    patience: Duration,
    /// The same with saslauthd, where a login takes longer than everything else here.
    long_patience: Duration,
}

pub const FULL: Effort = Effort {
    throughput: Duration::from_secs(10),
    alone: Duration::from_millis(2_500),
    warm_up: Duration::from_secs(10),
    window: Duration::from_secs(25),
    patience: Duration::from_secs(40),
    long_patience: Duration::from_secs(80),
};

pub const QUICK: Effort = Effort {
    throughput: Duration::from_secs(2),
    alone: Duration::from_millis(500),
    warm_up: Duration::from_secs(2),
    window: Duration::from_secs(4),
    patience: Duration::from_secs(8),
    long_patience: Duration::from_secs(8),
};

const PEERS: [Kind; 4] = [Kind::Sasld, Kind::Dovecot, Kind::DovecotNoPenalty, Kind::Saslauthd];

/// Connections that log in with the right password, as fast as they are answered.
const RIGHT_CONNECTIONS: usize = 16;

/// Logins that must be there for a median.
const FEWEST_ALONE: usize = 10;

pub fn beside_guessers(bench: &Bench) -> Outcome<Vec<Table>> {
    bound_to(bench.cores.all(), || Ok(vec![right_passwords(bench)?, between_guessers(bench)?]))
}

fn right_passwords(bench: &Bench) -> Outcome<Table> {
    let mut table = Table::new(
        "System users",
        format!(
            "A system user whose password is hashed with yescrypt as Debian does it, through pam_unix. Right passwords on \
             {RIGHT_CONNECTIONS} connections, each with the next login as soon as the last is answered, for {} seconds. \
             *CPU* is that of all the server's processes, *busy* how many of {} cores they used.",
            bench.effort.pam.throughput.as_secs(),
            bench.cores.count()
        ),
        &["server", "logins per second", "CPU ms per login", "busy"],
    );
    // The penalty of guessers makes no difference here.
    for kind in bench.kinds(&[Kind::Sasld, Kind::Dovecot, Kind::Saslauthd]) {
        let server = place::start(kind, &bench.secrets, bench.cores.all())?;
        let run = Throughput::measure(&server, bench)?;
        table.row([
            kind.name().to_owned(),
            format!("{:.1}", run.logins / run.wall.as_secs_f64()),
            format!("{:.1}", run.cpu.as_secs_f64() * 1e3 / run.logins),
            format!("{:.2}", run.cpu.as_secs_f64() / run.wall.as_secs_f64()),
        ]);
    }
    Ok(table)
}

struct Throughput {
    logins: f64,
    cpu: Duration,
    wall: Duration,
}

impl Throughput {
    /// A fifth of the time is for warming up.
    fn measure(server: &Server, bench: &Bench) -> Outcome<Self> {
        let effort = &bench.effort.pam;
        let door = Door::of(server, &server.socket);
        let (logins, over) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let (failed, failures) = mpsc::channel::<String>();
            for caller in 0..RIGHT_CONNECTIONS {
                let (failed, logins, over) = (failed.clone(), &logins, &over);
                scope.spawn(move || {
                    let login = Visitor::Known.login(caller, &bench.users);
                    let mut caller = Caller::new(door);
                    while !over.load(Ordering::Relaxed) {
                        match caller.log_in(&login) {
                            Ok(Verdict::Yes) => logins.fetch_add(1, Ordering::Relaxed),
                            other => return failed.send(format!("a right password: {other:?}")),
                        };
                    }
                    Ok(())
                });
            }
            let wait = |time| match failures.recv_timeout(time) {
                Ok(failure) => Err(failure),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
            };
            let measure = || -> Outcome<Self> {
                wait(effort.throughput / 5)?;
                let opened = Instant::now();
                let cpu_before = server.processes()?.cpu_with_the_dead();
                let logins_before = logins.load(Ordering::Relaxed);
                wait(effort.throughput)?;
                let done = logins.load(Ordering::Relaxed) - logins_before;
                let cpu = server.processes()?.cpu_with_the_dead().saturating_sub(cpu_before);
                interrupt::check()?;
                Ok(Self { logins: done as f64, cpu, wall: opened.elapsed() })
            };
            let measured = measure();
            over.store(true, Ordering::Relaxed);
            measured
        })
    }
}

fn between_guessers(bench: &Bench) -> Outcome<Table> {
    let effort = &bench.effort.pam;
    let mut table = Table::new(
        "System users, while others guess",
        format!(
            "Milliseconds that an honest login takes while 100 connections try wrong passwords for the same system user \
             without a pause, each from a network (/24) of its own. They begin {} seconds before the first honest user. Honest \
             logins begin at even intervals during {} seconds, whatever becomes of the earlier ones, all kinds of users \
             together; *alone* is the median before anybody guesses, one login after the other. *Refused* are right \
             passwords that were called wrong, *no verdict* those that were to be tried again later. What has no answer \
             when the time is over ({} seconds, with saslauthd {}) counts with the time it has waited.",
            effort.warm_up.as_secs(),
            effort.window.as_secs(),
            effort.patience.as_secs(),
            effort.long_patience.as_secs()
        ),
        &[
            "server",
            "who logs in",
            "alone",
            "p50",
            "p99",
            "logins",
            "refused",
            "no verdict",
            "guesses answered per second",
        ],
    );
    for kind in bench.kinds(&PEERS) {
        let server = place::start(kind, &bench.secrets, bench.cores.all())?;
        let visitors = visitors(kind);
        let mut visits = Vec::new();
        let mut alone = Vec::new();
        for &(visitor, _, pace) in &visitors {
            let latency = log_in_alone(&server, visitor, bench)?;
            visits.push(Visits { visitor, pace, seen: latency.len() });
            alone.push(median(&latency));
        }
        let patience = if kind == Kind::Saslauthd { effort.long_patience } else { effort.patience };
        let siege = siege::endure(server, &bench.users, &visits, effort, patience)?;
        for (&(visitor, title, _), alone) in visitors.iter().zip(alone) {
            if let Some(felt) = siege.felt.get(&visitor) {
                table.row(row(kind, title, alone, visitor, felt, &siege));
            }
        }
    }
    Ok(table)
}

/// Who comes to this server, what the table calls him, and how often he comes.
fn visitors(kind: Kind) -> Vec<(Visitor, &'static str, Duration)> {
    const QUARTER: Duration = Duration::from_millis(250);
    if kind == Kind::Saslauthd {
        // It knows neither addresses nor other users.
        return vec![(Visitor::Known, "anybody", Duration::from_millis(2_500))];
    }
    vec![
        (Visitor::Known, "who logged in from there before", QUARTER),
        (Visitor::Newcomer, "who comes from a new network", QUARTER),
        (Visitor::InFile, "a user of the secrets file", Duration::from_millis(100)),
    ]
}

/// One login after the other.
fn log_in_alone(server: &Server, visitor: Visitor, bench: &Bench) -> Outcome<Vec<Duration>> {
    let mut caller = Caller::new(Door::of(server, &server.socket));
    caller.connect()?;
    let begun = Instant::now();
    let mut latencies = Vec::new();
    while begun.elapsed() < bench.effort.pam.alone || latencies.len() < FEWEST_ALONE {
        interrupt::check()?;
        let login = visitor.login(latencies.len(), &bench.users);
        let since = Instant::now();
        let verdict = caller.log_in(&login)?;
        latencies.push(since.elapsed());
        if verdict != Verdict::Yes {
            return Err(format!("{}: a right password: {verdict:?}", server.kind.name()).into());
        }
    }
    Ok(latencies)
}

fn median(latencies: &[Duration]) -> Duration {
    let mut histogram = Histogram::new();
    latencies.iter().for_each(|&latency| histogram.record(latency));
    histogram.percentile(50.0)
}

fn row(
    kind: Kind,
    title: &str,
    alone: Duration,
    visitor: Visitor,
    felt: &Felt,
    siege: &Siege,
) -> Vec<String> {
    let percentile = |percent, goal: Option<f64>| {
        let latency = felt.latency.percentile(percent);
        match goal.filter(|_| kind == Kind::Sasld) {
            None => millis(latency),
            Some(goal) => {
                let met = latency.as_secs_f64() * 1e3 <= goal;
                judged(&millis(latency), &format!("≤ {goal}"), Some(met))
            }
        }
    };
    let (p50, p99) = goals(visitor);
    let refused = (kind == Kind::Sasld).then_some(felt.refused == 0);
    let logins = match felt.unanswered {
        0 => felt.begun.to_string(),
        unanswered => format!("{}, {unanswered} unanswered", felt.begun),
    };
    vec![
        kind.name().to_owned(),
        title.to_owned(),
        millis(alone),
        percentile(50.0, p50),
        percentile(99.0, p99),
        logins,
        judged(&felt.refused.to_string(), "0", refused),
        felt.undecided.to_string(),
        format!("{:.1}", siege.guesses_per_second),
    ]
}

fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    let decimals = match millis {
        ..1.0 => 2,
        1.0..10.0 => 1,
        _ => 0,
    };
    format!("{millis:.decimals$}")
}

/// Goals: milliseconds at the median and the 99th percentile.
fn goals(visitor: Visitor) -> (Option<f64>, Option<f64>) {
    match visitor {
        Visitor::Known => (Some(80.0), Some(300.0)),
        Visitor::Newcomer => (None, Some(3_000.0)),
        // Unaffected: no more than the scheduler of a busy machine takes for its turn.
        Visitor::InFile => (None, Some(20.0)),
    }
}
