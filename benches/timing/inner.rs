//! An unknown user beside a wrong password in session, passdb and credential, without a socket.
//!
//! How long the verdict takes is measured from the user's last message. When the refusal leaves must not depend on it:
//! the same moment for everybody, the jitter of the delay being the same here.

use crate::welch::{Dice, Samples};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sasld::passdb::{Chain, HashPool, Link, SecretsFile, Source};
use sasld::policy::{OnOutage, Policy, ServicePolicy};
use sasld::sasl::{Mechanism, NameRules, Seed};
use sasld::session::{Action, Moment, Session};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::future::Future;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Users in the file, and as many names that are not.
const USERS: u32 = 1_000;

const NOW: Moment = Moment(Duration::ZERO);

/// The same for each mechanism, names changing all the time, for each has a time of its own.
///
/// # Panics
/// When a refusal is set for another moment than the first one.
pub fn unknown_beside_wrong(samples: usize) -> Vec<(&'static str, Samples)> {
    let dir = tempfile::Builder::new().prefix("sasld-timing-").tempdir().expect("a temporary folder");
    let path = dir.path().join("secrets");
    let mut users = String::new();
    for number in 0..USERS {
        writeln!(users, "user{number:04}:{{PLAIN}}kestrel-{number:04}").expect("a string");
    }
    fs::write(&path, users).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    let pool = Arc::new(HashPool::start(NonZeroUsize::MIN).expect("a thread"));
    let file = SecretsFile::open(path, NameRules::default(), pool);
    let link = Link { source: Source::SecretsFile(file), continue_on_refusal: false };
    let bench = Bench { chain: Chain::new(vec![link]), policy: policy() };
    ["PLAIN", "LOGIN", "CRAM-MD5"].map(|mechanism| (mechanism, bench.measure(mechanism, samples))).into()
}

fn policy() -> Policy {
    Policy {
        host: "mail.example.com".to_owned(),
        names: NameRules::default(),
        default_service: ServicePolicy {
            mechanisms: Mechanism::ALL.to_vec(),
            require_tls: false,
            allow_nets: None,
        },
        services: BTreeMap::new(),
        refusal_delay: Duration::from_secs(2),
        deadline: Duration::from_secs(8),
        on_outage: OnOutage::Auto,
        max_exchanges: 8,
    }
}

struct Bench {
    chain: Chain,
    policy: Policy,
}

impl Bench {
    fn measure(&self, mechanism: &str, samples: usize) -> Samples {
        let mut found = Samples::with_capacity(samples);
        let mut dice = Dice::new();
        let mut session = Session::new(NOW);
        let mut due_always = None;
        for line in ["VERSION\t1\t2", "CPID\t1"] {
            assert!(matches!(self.hear(&mut session, line), Action::None));
        }
        for round in 0..samples + samples / 10 {
            let class = dice.coin();
            let who = if class { "user" } else { "nono" };
            let name = format!("{who}{:04}", dice.number() % u64::from(USERS));
            let last = self.all_but_the_last_message(&mut session, mechanism, &name);
            let began = Instant::now();
            let action = self.hear(&mut session, black_box(&last));
            let Action::Ask(ticket, question, origin) = action else { panic!("{action:?}") };
            let trail = self.chain.trail();
            let answer = pin!(self.chain.answer(&question, &origin, NOW, &trail));
            let Poll::Ready(answer) = answer.poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("{mechanism} of {name} is not answered at once");
            };
            let action = session.on_answer(ticket, answer, NOW + began.elapsed(), &self.policy, &mut seed);
            let took = began.elapsed();
            assert!(matches!(action, Action::Settle(_, None)), "{action:?}");
            let due = session.wake_at(&self.policy).expect("the refusal is to leave");
            assert_eq!(*due_always.get_or_insert(due), due, "{mechanism} of {name}");
            assert!(matches!(session.on_time(due, &self.policy), Action::Send(_)));
            // The first tenth warms up.
            if round >= samples / 10 {
                found.add(class, took);
            }
        }
        found
    }

    /// Goes on until the user's last message, which it gives.
    fn all_but_the_last_message(&self, session: &mut Session, mechanism: &str, name: &str) -> String {
        let auth = format!("AUTH\t1\t{mechanism}\tservice=smtp\trip=192.0.2.7\tsecured");
        let cont = |said: String| format!("CONT\t1\t{}", BASE64_STANDARD.encode(said));
        match mechanism {
            "PLAIN" => {
                let response = BASE64_STANDARD.encode(format!("\0{name}\0not-that-one"));
                format!("{auth}\tresp={response}")
            }
            "LOGIN" => {
                assert!(matches!(self.hear(session, &auth), Action::Send(_)));
                assert!(matches!(self.hear(session, &cont(name.to_owned())), Action::Send(_)));
                cont("not-that-one".to_owned())
            }
            _ => {
                assert!(matches!(self.hear(session, &auth), Action::Send(_)));
                cont(format!("{name} 0123456789abcdef0123456789abcdef"))
            }
        }
    }

    fn hear(&self, session: &mut Session, line: &str) -> Action {
        session.on_line(line.as_bytes(), NOW, &self.policy, 8, &mut seed)
    }
}

fn seed() -> Seed {
    Seed { random: [7; 16], unix_seconds: 1_700_000_000 }
}
