//! An unknown user beside a wrong password in session, passdb and credential, without a socket: how long the verdict
//! takes from the user's last message, and when the refusal leaves.

use crate::welch::{Dice, Samples};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sasld::passdb::{Chain, HashPool, SecretsFile};
use sasld::passdb::{Link, Source};
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

/// What refusals by one mechanism take, the unknown users' first.
pub struct Refusals {
    pub mechanism: &'static str,
    /// From the user's last message to the verdict, by the machine's clock.
    pub verdict: Samples,
    /// From the user's last message to the moment for which the session has set the reply, the verdict having taken as
    /// long as it did.
    pub leave: Samples,
}

/// The same for each mechanism. Every sample has another name, for each name has a time of its own.
pub fn unknown_beside_wrong(samples: usize) -> Vec<Refusals> {
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
    ["PLAIN", "LOGIN", "CRAM-MD5"].map(|mechanism| bench.measure(mechanism, samples)).into()
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
    fn measure(&self, mechanism: &'static str, samples: usize) -> Refusals {
        let mut verdict = Samples::with_capacity(samples);
        let mut leave = Samples::with_capacity(samples);
        let mut dice = Dice::new();
        let mut session = Session::new(NOW);
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
            let took = began.elapsed();
            let random = dice.number().to_be_bytes()[0];
            let mut jitter = || Seed { random: [random; 16], ..seed() };
            let action = session.on_answer(ticket, answer, NOW + took, &self.policy, &mut jitter);
            assert!(matches!(action, Action::Settle(_, None)), "{action:?}");
            let due = session.wake_at(&self.policy).expect("the refusal is to leave");
            assert!(matches!(session.on_time(due, &self.policy), Action::Send(_)));
            // The first tenth warms up.
            if round >= samples / 10 {
                verdict.add(class, took);
                leave.add(class, due.0);
            }
        }
        Refusals { mechanism, verdict, leave }
    }

    /// Goes on until the user's last message, which it gives.
    fn all_but_the_last_message(&self, session: &mut Session, mechanism: &str, name: &str) -> String {
        let auth = format!("AUTH\t1\t{mechanism}\tservice=smtp\trip=192.0.2.7\tsecured");
        let cont = |said: String| format!("CONT\t1\t{}", BASE64_STANDARD.encode(said));
        match mechanism {
            "PLAIN" => {
                let response = BASE64_STANDARD.encode(format!("\0{name}\0wrong-password"));
                format!("{auth}\tresp={response}")
            }
            "LOGIN" => {
                assert!(matches!(self.hear(session, &auth), Action::Send(_)));
                assert!(matches!(self.hear(session, &cont(name.to_owned())), Action::Send(_)));
                cont("wrong-password".to_owned())
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
