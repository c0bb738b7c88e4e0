//! `cargo bench --bench peers`: sasld beside Dovecot, saslauthd and a server that parses nothing, in one run.
//!
//! Without arguments every scenario runs; arguments name the scenarios to run (`logins`, `latency`, `anatomy`,
//! `resources`, `million`, `hashes`, `pam`). Each replaces its own section of `docs/performance.md`. `BENCH=quick` takes
//! three minutes and only prints; so does `BENCH_WITHOUT=dovecot,saslauthd,pam`, which leaves out a server or the scenario `pam`, for a
//! machine that has none, or no root. Whatever cannot be measured ends the program with status 1 and a message, and so
//! does a signal; sections finished by then are written, and every server started is stopped.

mod anatomy;
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
mod pam;
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

use nix::sys::prctl::set_child_subreaper;

use crate::{
    dialog::User,
    measure::{Cores, Peer},
    server::{Kind, Server},
    table::{Section, Table},
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
    /// Logins that strace and valgrind look at.
    counted_logins: u64,
    /// Users in the large secrets file.
    many_users: usize,
    /// How many of the expensive schemes.
    schemes: usize,
    pam: pam::Effort,
}

const FULL: Effort = Effort {
    rounds: 7,
    window: Duration::from_millis(800),
    starts: 30,
    idle_connections: 10_000,
    counted_logins: 10_000,
    many_users: 1_000_000,
    schemes: 3,
    pam: pam::FULL,
};

const QUICK: Effort = Effort {
    rounds: 2,
    window: Duration::from_millis(200),
    starts: 5,
    idle_connections: 2_000,
    counted_logins: 1_000,
    many_users: 100_000,
    schemes: 1,
    pam: pam::QUICK,
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

const SCENARIOS: [Scenario; 7] = [
    ("logins", logins::cpu_and_throughput),
    ("latency", logins::latency),
    ("anatomy", anatomy::calls_allocations_instructions),
    ("resources", resources::connections_and_start),
    ("million", million::load_and_reload),
    ("hashes", hashes::beside_cheap_logins),
    (pam::SCENARIO, pam::beside_guessers),
];

fn main() -> Outcome<()> {
    // cargo appends `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [echo::ARGUMENT, socket, challenges] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        match echo::serve(Path::new(socket), challenges.parse()?)? {}
    }
    let quick = match variable("BENCH")?.as_deref() {
        None => false,
        Some("quick") => true,
        Some(other) => return Err(format!("BENCH={other:?}: only \"quick\" is known").into()),
    };
    let LeftOut { kinds: without, pam: without_pam } = LeftOut::read()?;
    let scenarios = wanted(&arguments, without_pam)?;
    let with_pam = scenarios.iter().any(|(name, _)| *name == pam::SCENARIO);

    interrupt::watch()?;
    measure::raise_descriptor_limit()?;
    // What a server leaves behind when it is killed becomes our child, and its CPU time ours to account for.
    set_child_subreaper(true)?;
    if with_pam {
        pam::check_rights()?;
    }
    let mut peers = Vec::new();
    if !without.contains(&Kind::Dovecot) {
        peers.push(Peer { name: "Dovecot", program: "dovecot", version: "--version" });
    }
    if with_pam && !without.contains(&Kind::Saslauthd) {
        peers.push(Peer { name: "saslauthd", program: "saslauthd", version: "-v" });
    }
    let machine = measure::machine(&sasld::program(), &peers)?.join("; ");
    let moment = measure::moment()?;
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

    let mut command = "cargo bench --bench peers".to_owned();
    if !arguments.is_empty() {
        command.push_str(&format!(" -- {}", arguments.join(" ")));
    }
    let for_the_page = !quick && bench.without.is_empty() && !without_pam;
    for (scenario, measure_all) in scenarios {
        let (begun, foreign_before) = (Instant::now(), measure::foreign_cpu()?);
        let tables = measure_all(&bench)?;
        let foreign =
            measure::foreign_cpu()?.saturating_sub(foreign_before).div_duration_f64(begun.elapsed());
        let origin = format!(
            "`{command}`, {moment}; other programs and the host kept {foreign:.2} of {} cores busy meanwhile. {machine}.",
            bench.cores.count()
        );
        let section = Section { scenario, origin, tables };
        println!("\n{}", section.to_markdown());
        if for_the_page {
            section.write_into(Path::new("docs/performance.md"))?;
        }
    }
    Ok(())
}

/// The scenarios that these arguments name; without arguments, all of them.
fn wanted(arguments: &[String], without_pam: bool) -> Outcome<Vec<Scenario>> {
    let known = |name: &String| SCENARIOS.iter().any(|(known, _)| known == name);
    if let Some(unknown) = arguments.iter().find(|name| !known(name)) {
        return Err(
            format!("unknown scenario {unknown:?}; known: {:?}", SCENARIOS.map(|(name, _)| name)).into()
        );
    }
    let is_wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|wanted| wanted == name);
    let scenarios = SCENARIOS.into_iter();
    Ok(scenarios.filter(|(name, _)| is_wanted(name) && !(without_pam && *name == pam::SCENARIO)).collect())
}

/// What `BENCH_WITHOUT` says.
#[derive(Default)]
struct LeftOut {
    kinds: Vec<Kind>,
    pam: bool,
}

impl LeftOut {
    fn read() -> Outcome<Self> {
        let mut left_out = Self::default();
        let Some(words) = variable("BENCH_WITHOUT")? else {
            return Ok(left_out);
        };
        for word in words.split(',') {
            match word {
                "dovecot" => left_out.kinds.extend([Kind::Dovecot, Kind::DovecotNoPenalty]),
                "saslauthd" => left_out.kinds.push(Kind::Saslauthd),
                "pam" => left_out.pam = true,
                other => {
                    let known = "\"dovecot\", \"saslauthd\" and \"pam\" can be left out, separated by commas";
                    return Err(format!("BENCH_WITHOUT: {known}, not {other:?}").into());
                }
            }
        }
        Ok(left_out)
    }
}

/// An environment variable; empty is as good as unset, which is what make passes on.
fn variable(name: &str) -> Outcome<Option<String>> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("{name}: {error}").into()),
    }
}
