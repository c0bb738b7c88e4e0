//! A connection and its client on a socket pair, in time that only the test moves.

use super::*;
use crate::passdb::Chain;
use crate::policy::{OnOutage, ServicePolicy};
use crate::sasl::{Mechanism, NameRules};
use crate::server::Live;
use std::sync::mpsc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::advance;

/// A client of a connection whose service knows nobody, in time that stands still until it is moved.
struct Client {
    stream: UnixStream,
    service: Arc<Service>,
    serving: JoinHandle<()>,
    /// Time does not move by itself while a blocking task runs: this one ends with the client.
    _hold: mpsc::Sender<()>,
}

/// Every mechanism, and no rules.
pub fn policy() -> Policy {
    Policy {
        host: "mail.example.com".to_owned(),
        names: NameRules::default(),
        default_service: ServicePolicy {
            mechanisms: Mechanism::ALL.to_vec(),
            require_tls: false,
            allow_nets: None,
        },
        services: std::collections::BTreeMap::new(),
        refusal_delay: Duration::from_secs(2),
        deadline: Duration::from_secs(8),
        on_outage: OnOutage::Auto,
        max_exchanges: 1_024,
    }
}

impl Client {
    async fn connect() -> Self {
        Self::connect_to(Service::new(Live { policy: policy(), passdbs: Chain::new(Vec::new()) })).await
    }

    async fn connect_to(service: Service) -> Self {
        tokio::time::pause();
        let (hold, end) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || end.recv());
        let service = Arc::new(service);
        let (stream, served) = UnixStream::pair().unwrap();
        let greeting = greeting(&service, 1);
        let serving = tokio::spawn(serve(Stream::Unix(served), Arc::clone(&service), 1, greeting));
        let mut client = Self { stream, service, serving, _hold: hold };
        while !client.read().await.ends_with("DONE\n") {}
        client
    }

    async fn greeted() -> Self {
        let mut client = Self::connect().await;
        client.write("VERSION\t1\t1\nCPID\t7\n").await;
        client
    }

    async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// What comes next; nothing at the end.
    async fn read(&mut self) -> String {
        let mut bytes = [0; 4096];
        let length = self.stream.read(&mut bytes).await.unwrap_or(0);
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    async fn is_closed(&mut self) -> bool {
        self.read().await.is_empty()
    }
}

#[tokio::test]
async fn a_day_of_silence_hurts_no_login() {
    let mut client = Client::greeted().await;
    client.write("AUTH\t1\tLOGIN\tservice=smtp\n").await;
    assert_eq!(client.read().await, "CONT\t1\tVXNlcm5hbWU6\n");
    advance(Duration::from_secs(24 * 60 * 60)).await;
    client.write("AUTH\t2\tLOGIN\tservice=smtp\n").await;
    assert_eq!(client.read().await, "CONT\t2\tVXNlcm5hbWU6\n");
    client.write("CONT\t2\tYWxpY2U=\n").await;
    assert_eq!(client.read().await, "CONT\t2\tUGFzc3dvcmQ6\n");
    client.write("CONT\t1\tYWxpY2U=\n").await;
    assert_eq!(client.read().await, "FAIL\t1\treason=Authentication request timed out\n");
}

#[tokio::test]
async fn a_handshake_must_be_done_in_30_s_however_slowly_it_comes() {
    let mut client = Client::connect().await;
    for byte in ["V", "E", "R", "S", "I"] {
        client.write(byte).await;
        advance(Duration::from_secs(5)).await;
    }
    assert!(!client.serving.is_finished());
    advance(Duration::from_secs(5)).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_refusal_leaves_when_it_is_due() {
    let mut client = Client::greeted().await;
    client.write("AUTH\t1\tPLAIN\tservice=smtp\tresp=AGFsaWNlAHdyb25n\nAUTH\t2\tNOPE\tservice=smtp\n").await;
    assert_eq!(client.read().await, "FAIL\t2\n", "the first one is decided, too, and waits");
    advance(Duration::from_millis(1_999)).await;
    client.write("AUTH\t3\tNOPE\tservice=smtp\n").await;
    assert_eq!(client.read().await, "FAIL\t3\n");
    advance(Duration::from_millis(502)).await;
    assert_eq!(client.read().await, "FAIL\t1\tuser=alice\treason=Invalid user name or password\n");
}

#[tokio::test]
async fn when_the_daemon_ends_an_idle_client_may_still_ask_and_is_let_go_with_the_verdict() {
    let mut client = Client::greeted().await;
    client.service.drain();
    advance(FIRST_WORDS - Duration::from_millis(1)).await;
    assert!(!client.serving.is_finished());
    client.write("AUTH\t1\tNOPE\tservice=smtp\n").await;
    assert_eq!(client.read().await, "FAIL\t1\n");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn who_stays_silent_is_let_go_when_the_time_for_first_words_is_over() {
    let mut client = Client::greeted().await;
    client.service.drain();
    tokio::task::yield_now().await;
    advance(FIRST_WORDS + Duration::from_millis(1)).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_connection_to_a_daemon_that_ends_already_is_greeted_and_has_as_long() {
    let service = Service::new(Live { policy: policy(), passdbs: Chain::new(Vec::new()) });
    service.drain();
    let mut client = Client::connect_to(service).await;
    advance(FIRST_WORDS - Duration::from_millis(1)).await;
    assert!(!client.serving.is_finished());
    advance(Duration::from_millis(2)).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn who_reads_nothing_is_read_from_no_more_and_left_after_a_minute() {
    let mut client = Client::greeted().await;
    // Replies are longer than these lines; what the socket does not take waits, and then the lines wait.
    let lines = "CONT\t1\t\n".repeat(1_000);
    let mut sent = 0;
    while sent < 4 << 20 {
        match client.stream.try_write(lines.as_bytes()) {
            Ok(length) => sent += length,
            Err(_) => {
                // As often as it takes for the other side to read what it wants to read.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                if client.stream.try_write(b"CONT\t1\t\n").is_err() {
                    break;
                }
            }
        }
    }
    assert!(sent < 4 << 20, "the client is never held up");
    advance(STUCK_AFTER + Duration::from_secs(1)).await;
    (&mut client.serving).await.unwrap();
}

#[tokio::test]
async fn a_question_whose_task_panics_is_answered() {
    let (now, policy) = (Moment(Duration::ZERO), policy());
    let mut session = Session::new(now);
    let mut say = |line: &[u8]| session.on_line(line, now, &policy, 1, &mut random::seed);
    say(b"VERSION\t1\t1");
    say(b"CPID\t7");
    let Action::Ask(ticket, ..) = say(b"AUTH\t1\tPLAIN\tservice=smtp\tresp=AGFsaWNlAHdyb25n") else {
        panic!("a password is a question")
    };
    let (sender, mut answers) = unbounded_channel();
    let reply = ReplyTo { ticket, sender: Some(sender) };
    let task = tokio::spawn(async move {
        let _reply = reply;
        panic!("a passdb gone wrong");
    });
    assert!(task.await.is_err_and(|error| error.is_panic()));
    let answer = answers.recv().await;
    assert!(matches!(answer, Some((answered, Err(Outage::Internal))) if answered == ticket));
}
