//! What a stranger sees: how long a refusal takes, for users who exist and for those who do not.

use crate::welch::{Dice, Samples};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Logins that are open at a time.
const OPEN: usize = 1_000;

/// An unknown user beside a wrong password, by each mechanism; both names are as long as each other.
pub fn unknown_beside_wrong(samples: usize) -> Vec<(String, Samples)> {
    let dir = tempfile::Builder::new().prefix("sasld-timing-").tempdir().expect("a temporary folder");
    let server = Server::start(dir.path());
    let mechanisms = ["PLAIN", "LOGIN", "CRAM-MD5"];
    let found = mechanisms.map(|mechanism| {
        let what = format!("{mechanism} through the socket: unknown user, wrong password");
        (what, measure(&server.socket, mechanism, samples))
    });
    found.into()
}

struct Server {
    child: Child,
    socket: std::path::PathBuf,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let (socket, secrets, config) = (dir.join("auth"), dir.join("secrets"), dir.join("sasld.yaml"));
        let mut users = String::new();
        for number in 0..1_000 {
            writeln!(users, "user{number:04}:{{PLAIN}}kestrel-{number}").expect("a string");
        }
        fs::write(&secrets, users).expect("a file");
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).expect("a mode");
        let (uid, gid) = (nix::unistd::Uid::effective(), nix::unistd::Gid::effective());
        let listener = format!("{{unix: {}, owner: {uid}, group: {gid}, mode: \"0600\"}}", socket.display());
        let passdb = format!("secrets_file: {}", secrets.display());
        let text = format!(
            "listeners: [{listener}]\npassdbs: [{{{passdb}}}]\nrequire_tls: false\nrefusal_delay: 1s\nlog_level: error\n\
             limits: {{exchanges_per_connection: 2000}}\ncontrol: off\n"
        );
        fs::write(&config, text).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sasld"));
        let child = command
            .args(["serve", "--config"])
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .expect("sasld starts");
        let server = Self { child, socket };
        while UnixStream::connect(&server.socket).is_err() {
            std::thread::yield_now();
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps [`OPEN`] logins open until there are `samples` refusals.
fn measure(socket: &Path, mechanism: &str, samples: usize) -> Samples {
    let stream = UnixStream::connect(socket).expect("sasld listens");
    let mut writer = stream.try_clone().expect("a descriptor");
    let mut reader = BufReader::new(stream);
    writer.write_all(b"VERSION\t1\t2\nCPID\t1\n").expect("sasld reads");
    let mut dice = Dice::new();
    let mut found = Samples::with_capacity(samples);
    let mut open: HashMap<u32, (bool, Instant, u8)> = HashMap::new();
    let mut last_id = 0_u32;
    let mut line = String::new();
    while found.len() < samples {
        while open.len() < OPEN {
            last_id += 1;
            let class = dice.coin();
            let name = if class { "user0500" } else { "nobody00" };
            let response = match mechanism {
                "PLAIN" => format!("\tresp={}", BASE64_STANDARD.encode(format!("\0{name}\0wrong-password"))),
                _ => String::new(),
            };
            open.insert(last_id, (class, Instant::now(), 0));
            writeln!(writer, "AUTH\t{last_id}\t{mechanism}\tservice=smtp\tsecured{response}")
                .expect("sasld reads");
        }
        line.clear();
        assert_ne!(reader.read_line(&mut line).expect("sasld writes"), 0, "sasld has hung up");
        let mut fields = line.trim_end().split('\t');
        let (word, id) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let Ok(id) = id.parse::<u32>() else { continue };
        match word {
            "CONT" => {
                let (class, since, step) = open.get_mut(&id).expect("it is ours");
                let name = if *class { "user0500" } else { "nobody00" };
                let said = match (mechanism, *step) {
                    ("LOGIN", 0) => name.to_owned(),
                    ("LOGIN", _) => "wrong-password".to_owned(),
                    _ => format!("{name} 0123456789abcdef0123456789abcdef"),
                };
                *step += 1;
                // What counts is the last message.
                *since = Instant::now();
                writeln!(writer, "CONT\t{id}\t{}", BASE64_STANDARD.encode(said)).expect("sasld reads");
            }
            "FAIL" => {
                let (class, since, _) = open.remove(&id).expect("it is ours");
                found.add(class, since.elapsed());
            }
            _ => {}
        }
    }
    found
}
