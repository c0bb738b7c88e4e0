//! Hashes that are meant to be expensive: how many a server verifies, and what becomes of cheap logins meanwhile.
//!
//! Two clients at once, on threads of their own: one keeps eight expensive logins in flight, the other makes 200
//! CRAM-MD5 logins per second, evenly spread, and their latency is the result.

use std::{
    slice,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use crate::{
    Bench, Outcome,
    dialog::{Mechanism, User},
    load::{Load, Measured},
    measure::bound_to,
    series::{Results, judged},
    server::{Kind, Server},
    table::Table,
};

const PEERS: [Kind; 2] = [Kind::Sasld, Kind::Dovecot];
const PASSWORD: &str = "a long enough password";
/// What the table calls it, the user's name, and the verifier of [`PASSWORD`]: at the cost that most existing files
/// have, and for Argon2 at the cost that sasld gives new ones.
const SCHEMES: [(&str, &str, &str); 3] = [
    (
        "SHA512-CRYPT, 5,000 rounds",
        "sha512-crypt@example.com",
        "{SHA512-CRYPT}$6$rPv3h/H5MVhwzTe/$tNh0fUaCaFbcMQzM0OnHYt2fimrzI.TuhoKCg02jL.ydhxR36KsTeDqo9b6xRqmW8wkFKX9Z\
         mwMKBjIxuYtYk/",
    ),
    (
        "BLF-CRYPT, cost 10",
        "blf-crypt@example.com",
        "{BLF-CRYPT}$2y$10$JPTwzoEpTxTOEze8r/e/L.X8g0uGCjhiB5fcIBV21yCitOa4h9xX2",
    ),
    (
        "ARGON2ID, 19 MiB, 2 passes",
        "argon2id@example.com",
        "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$2Ldo0owg9lGxRYcClje6NQ$/dflve9He/tpqu1KULL5ni3V5rubr3KYthNtHOvD1Dg",
    ),
];
const CHEAP_CONNECTIONS: usize = 20;
const CHEAP_PACE: Duration = Duration::from_millis(100);

pub fn beside_cheap_logins(bench: &Bench) -> Outcome<Vec<Table>> {
    let cores = &bench.cores;
    let mut table = Table::new(
        "Expensive hashes",
        format!(
            "Eight connections that log in by PLAIN against an expensive hash without a pause, beside 200 CRAM-MD5 logins \
             per second, whose 99th percentile is given in milliseconds: without and with the expensive ones. *Busy* is \
             how many of {} cores the server used. Server and client on a core each, then both on all cores.",
            cores.count()
        ),
        &[
            "scheme",
            "server",
            "verified per second, one core",
            "all cores",
            "busy, one core",
            "busy, all cores",
            "p99 without",
            "p99 with, one core",
            "p99 with, all cores",
        ],
    );
    let schemes = &SCHEMES[..bench.effort.schemes];
    let mut secrets = bench.secrets.clone();
    for (_, name, verifier) in schemes {
        secrets.extend_from_slice(format!("{name}:{verifier}\n").as_bytes());
    }
    let expensive: Vec<User> =
        schemes.iter().map(|(_, name, _)| User::new((*name).to_owned(), PASSWORD.to_owned())).collect();

    let one = Setting::measure(bench, &secrets, &expensive, cores.server(), cores.client())?;
    let all = Setting::measure(bench, &secrets, &expensive, cores.all(), cores.all())?;
    for (index, (title, ..)) in schemes.iter().enumerate() {
        for kind in bench.kinds(&PEERS) {
            let busy = all.schemes[index].busy.of(kind);
            let goal = 0.9 * cores.count() as f64;
            let met = busy.median().filter(|_| kind == Kind::Sasld).map(|busy| busy >= goal);
            table.row([
                (*title).to_owned(),
                kind.name().to_owned(),
                one.schemes[index].per_second.of(kind).cell(1),
                all.schemes[index].per_second.of(kind).cell(1),
                one.schemes[index].busy.of(kind).cell(2),
                judged(&busy.cell(2), &format!("≥ {goal}"), met),
                one.p99_alone.of(kind).cell(1),
                one.schemes[index].p99.of(kind).cell(1),
                all.schemes[index].p99.of(kind).cell(1),
            ]);
        }
    }
    Ok(vec![table])
}

/// The results of all schemes with server and client on certain cores.
#[derive(Default)]
struct Setting {
    p99_alone: Results,
    schemes: Vec<Together>,
}

/// One scheme beside the cheap logins.
#[derive(Default)]
struct Together {
    per_second: Results,
    busy: Results,
    p99: Results,
}

impl Setting {
    fn measure(
        bench: &Bench,
        secrets: &[u8],
        expensive: &[User],
        server_cores: &[usize],
        client_cores: &[usize],
    ) -> Outcome<Self> {
        let kinds = bench.kinds(&PEERS).into_iter();
        let servers: Vec<Server> =
            kinds.map(|kind| kind.start(secrets, server_cores, 0)).collect::<Outcome<_>>()?;
        let mut setting = Self::default();
        bound_to(client_cores, || {
            for server in &servers {
                let alone = cheap(bench).run(server)?;
                setting.p99_alone.push_millis(server.kind, alone.latency.percentile(99.0));
            }
            for user in expensive {
                let mut together = Together::default();
                for server in &servers {
                    together.add(bench, server, user)?;
                }
                setting.schemes.push(together);
            }
            Ok(())
        })?;
        Ok(setting)
    }
}

impl Together {
    /// The cheap client connects first and ends first: expensive logins are in flight all through its window, and until
    /// the last of its logins is answered.
    fn add(&mut self, bench: &Bench, server: &Server, user: &User) -> Outcome<()> {
        let stop = AtomicBool::new(false);
        let expensive = Load {
            mechanism: Mechanism::Plain,
            users: slice::from_ref(user),
            connections: 8,
            warm_up: bench.effort.window / 4,
            window: Duration::MAX,
            max_logins: u64::MAX,
            stop: Some(&stop),
            pace: None,
        };
        let (expensive, cheap) = thread::scope(|scope| {
            let mut client = None;
            let cheap = cheap(bench).run_disturbed(server, Duration::ZERO, || {
                // Inherits this thread's cores, through the one that disturbs.
                client = Some(scope.spawn(|| expensive.run(server)));
                Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            (client.map(ScopedJoinHandle::join), cheap)
        });
        let cheap = cheap?;
        let expensive = expensive.ok_or("the cheap client ended before its window")?;
        let expensive: Measured = expensive.map_err(|_| "the expensive client panicked")??;
        if cheap.refused > 0 {
            return Err(format!("{} refused {} right passwords", server.kind.name(), cheap.refused).into());
        }
        self.per_second.push(server.kind, expensive.logins_per_second());
        self.busy.push(server.kind, expensive.busy_cores());
        self.p99.push_millis(server.kind, cheap.latency.percentile(99.0));
        Ok(())
    }
}

fn cheap(bench: &Bench) -> Load<'_> {
    Load {
        mechanism: Mechanism::CramMd5,
        users: &bench.users,
        connections: CHEAP_CONNECTIONS,
        warm_up: bench.effort.window / 4,
        window: bench.effort.window * 4,
        max_logins: u64::MAX,
        stop: None,
        pace: Some(CHEAP_PACE),
    }
}
