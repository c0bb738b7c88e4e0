//! The system's users: the PAM service, `sasld-pam` behind its socket, and the mechanism that PAM can never serve.

use super::users::has_secrets_file;
use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::control::reply::PassdbState;
use crate::pam::SERVICE_FOLDERS;
use crate::pam::request::{FrameBuffer, Hello};
use crate::sasl::Mechanism;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// sasld itself waits as long for the greeting.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn cram_md5(facts: &Facts) -> Vec<Finding> {
    if facts.pam().is_none() || !has_secrets_file(facts) || !facts.offers(Mechanism::CramMd5) {
        return Vec::new();
    }
    vec![
        Finding::warning("CRAM-MD5 is offered, and users of PAM cannot use it")
            .why(
                "PAM never tells a stored password, which CRAM-MD5 needs. Many mail programs take CRAM-MD5 whenever they \
                 see it and then try nothing else. Keep it only for devices whose users are in the secrets file.",
            )
            .fix(facts.configure("mechanisms", "[PLAIN, LOGIN]")),
    ]
}

pub fn service(facts: &Facts) -> Vec<Finding> {
    let Some(settings) = facts.pam() else { return Vec::new() };
    let service = &settings.worker.service;
    let below = |folder: &str| facts.root.join(folder.trim_start_matches('/')).join(service);
    if SERVICE_FOLDERS.iter().any(|folder| below(folder).is_file()) {
        return Vec::new();
    }
    let file = below(SERVICE_FOLDERS[0]);
    let file = file.display();
    let what = format!("{file} does not exist");
    vec![Finding::error(what).why("Users of PAM hear 454: nobody can check their passwords.").fix(format!(
        "printf '@include common-auth\\n@include common-account\\n' >{}",
        crate::cli::doctor::shell::quote(&file.to_string())
    ))]
}

pub fn worker(facts: &Facts) -> Vec<Finding> {
    let Some(settings) = facts.pam() else { return Vec::new() };
    let start = match &facts.units {
        Some(units) if units.has("sasld-pam.socket") => "systemctl enable --now sasld-pam.socket".to_owned(),
        // Without systemd sasld starts it, over a descriptor that nobody else sees.
        _ if facts.runs("sasld-pam") => return Vec::new(),
        _ => facts.start_sasld(),
    };
    // A running sasld knows, and is the only one besides root whom sasld-pam talks to.
    let known = facts.status.iter().flat_map(|status| &status.passdbs).find_map(|passdb| match passdb {
        PassdbState::Pam(pam) => Some(pam),
        PassdbState::SecretsFile(_) => None,
    });
    match known {
        Some(pam) if pam.connected => return Vec::new(),
        Some(pam) => {
            let trouble = pam.trouble.as_deref().unwrap_or("there is no connection");
            return vec![
                Finding::error(format!("sasld cannot reach sasld-pam: {trouble}"))
                    .at(settings.socket.display())
                    .why("Users of PAM hear 454.")
                    .fix(start),
            ];
        }
        None => {}
    }
    match hello(&settings.socket) {
        Ok(hello) if hello.settings != settings.worker.to_string() => vec![
            Finding::warning(format!("sasld-pam was started with other settings: {}", hello.settings))
                .at(settings.socket.display())
                .why(format!(
                    "Its own count, not those of the configuration. They are in ExecStart= of sasld-pam.service: {}",
                    settings.worker
                ))
                .fix("systemctl edit sasld-pam.service"),
        ],
        Ok(_) => Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !facts.is_root() => {
            vec![Finding::skipped("only root and sasld can connect to sasld-pam")]
        }
        // It hangs up on strangers, and root is one: but somebody is there.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Vec::new(),
        Err(error) => vec![
            Finding::error(format!("sasld-pam does not answer: {error}"))
                .at(settings.socket.display())
                .why("Users of PAM hear 454.")
                .fix(start),
        ],
    }
}

fn hello(socket: &Path) -> io::Result<Hello> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = FrameBuffer::default();
    let mut bytes = [0; 1_024];
    loop {
        let invalid = |error: crate::pam::frame::FormatError| {
            io::Error::new(io::ErrorKind::InvalidData, error.to_string())
        };
        if let Some(frame) = buffer.next_frame().map_err(invalid)? {
            return Hello::decode(&frame).map_err(invalid);
        }
        match stream.read(&mut bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => buffer.extend(&bytes[..length]),
        }
    }
}
