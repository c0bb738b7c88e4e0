//! `cargo bench --bench peers`: sasld beside Dovecot and beside a server that parses nothing, in one run.
//!
//! Without arguments every scenario runs, and the tables replace those in `docs/performance.md`; arguments name the
//! scenarios to run (`logins`, `latency`, `resources`, `million`, `hashes`) and only print. `BENCH=quick` takes
//! a minute and only prints; `BENCH_WITHOUT=dovecot` leaves Dovecot out, for a machine that has none, or no root. Whatever
//! cannot be measured ends the program with status 1 and a message, and so does a signal; every server started is stopped.

mod connection;
mod dialog;
mod dovecot;
mod echo;
mod hashes;
mod histogram;
mod interrupt;
mod load;
mod logins;
mod measure;
mod million;
mod resources;
mod sasld;
mod series;
mod server;
mod table;

use std::{
    env::{self, VarError},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    dialog::User,
    measure::Cores,
    server::{Kind, Server},
    table::Table,
};

/// Any error ends the run: a number measured past one would mean nothing.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How much time a run may take.
struct Effort {
    rounds: usize,
    window: Duration,
    /// Starts of each server, for the median.
    starts: usize,
    idle_connections: usize,
    /// Users in the large secrets file.
    many_users: usize,
    /// How many of the expensive schemes.
    schemes: usize,
}

const FULL: Effort = Effort {
    rounds: 7,
    window: Duration::from_millis(800),
    starts: 30,
    idle_connections: 10_000,
    many_users: 1_000_000,
    schemes: 3,
};

const QUICK: Effort = Effort {
    rounds: 2,
    window: Duration::from_millis(200),
    starts: 5,
    idle_connections: 2_000,
    many_users: 100_000,
    schemes: 1,
};

/// What every scenario works with.
struct Bench {
    effort: Effort,
    cores: Cores,
    /// Servers that are not measured.
    without: Vec<Kind>,
    /// 1,000 users, and the secrets file that holds them.
    users: Vec<User>,
    secrets: Vec<u8>,
}

impl Bench {
    /// Those of `kinds` that are to be measured.
    fn kinds(&self, kinds: &[Kind]) -> Vec<Kind> {
        kinds.iter().copied().filter(|kind| !self.without.contains(kind)).collect()
    }

    /// Starts one server of each kind with the 1,000 users.
    fn start(&self, kinds: &[Kind], cores: &[usize], challenges: u8) -> Outcome<Vec<Server>> {
        let kinds = self.kinds(kinds).into_iter();
        kinds.map(|kind| kind.start(&self.secrets, cores, challenges)).collect()
    }
}

type Scenario = (&'static str, fn(&Bench) -> Outcome<Vec<Table>>);

const SCENARIOS: [Scenario; 5] = [
    ("logins", logins::cpu_and_throughput),
    ("latency", logins::latency),
    ("resources", resources::connections_and_start),
    ("million", million::load_and_reload),
    ("hashes", hashes::beside_cheap_logins),
];

fn main() -> Outcome<()> {
    // cargo appends `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [echo::ARGUMENT, socket, challenges] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        match echo::serve(Path::new(socket), challenges.parse()?)? {}
    }
    let known = |name: &String| SCENARIOS.iter().any(|(known, _)| known == name);
    if let Some(unknown) = arguments.iter().find(|name| !known(name)) {
        return Err(
            format!("unknown scenario {unknown:?}; known: {:?}", SCENARIOS.map(|(name, _)| name)).into()
        );
    }
    let quick = match variable("BENCH")?.as_deref() {
        None => false,
        Some("quick") => true,
        Some(other) => return Err(format!("BENCH={other:?}: only \"quick\" is known").into()),
    };
    let without = match variable("BENCH_WITHOUT")?.as_deref() {
        None => Vec::new(),
        Some("dovecot") => vec![Kind::Dovecot, Kind::DovecotNoPenalty],
        Some(other) => {
            return Err(format!("BENCH_WITHOUT={other:?}: only \"dovecot\" can be left out").into());
        }
    };

    interrupt::watch()?;
    measure::raise_descriptor_limit()?;
    let mut machine = measure::machine(&sasld::program(), without.is_empty())?;
    let users: Vec<User> = (0..1000).map(User::numbered).collect();
    let bench = Bench {
        effort: if quick { QUICK } else { FULL },
        cores: Cores::available()?,
        without,
        secrets: users.iter().map(User::secrets_line).collect::<String>().into_bytes(),
        users,
    };
    if bench.cores.count() < 2 {
        return Err("server and client need a core each".into());
    }
    machine.iter().for_each(|line| println!("- {line}"));

    let (begun, foreign_before) = (Instant::now(), measure::foreign_cpu()?);
    let mut tables = Vec::new();
    for (name, scenario) in SCENARIOS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            for table in scenario(&bench)? {
                println!("\n{}", table.to_markdown());
                tables.push(table);
            }
        }
    }
    let foreign = measure::foreign_cpu()?.saturating_sub(foreign_before).div_duration_f64(begun.elapsed());
    let quiet =
        format!("other programs and the host kept {foreign:.2} of {} cores busy", bench.cores.count());
    println!("\n{quiet}");
    machine.push(quiet);
    if arguments.is_empty() && !quick && bench.without.is_empty() {
        table::write_page(Path::new("docs/performance.md"), &machine, &tables)?;
    }
    Ok(())
}

/// An environment variable; empty is as good as unset, which is what make passes on.
fn variable(name: &str) -> Outcome<Option<String>> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("{name}: {error}").into()),
    }
}
