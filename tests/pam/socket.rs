//! The socket of `sasld-pam`: whose it is, who is served there, and what becomes of those who break the format.

use crate::harness::{Folder, Listening, PamServer, module_stack, wait_until};
use sasld::credential::Password;
use sasld::pam::code::Code;
use sasld::pam::request::{Answer, Checked, FrameBuffer, Hello, Lane, Outcome, Request};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn a_client_that_breaks_the_format_is_closed() {
    for bytes in [&[0, 0, 0, 0][..], &[0, 0, 16, 1], &[0, 0, 0, 2, 9, b'Q'], &[0, 0, 0, 3, 1, b'Q', 0]] {
        let mut pam = PamServer::start(&module_stack(), &["--min-uid=0"]);
        pam.write(bytes);
        assert_eq!(pam.frame(), None);
    }
}

/// A xorshift generator: the same odd bytes in every run.
struct Odd(u64);

impl Odd {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (below as u64)).expect("a small number")
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.next(256)).expect("a byte")
    }
}

/// What a sasld that has been taken over could send: almost requests, with bytes changed, added and taken away.
#[test]
fn hostile_frames_end_in_an_answer_or_a_closed_connection_and_never_in_a_crash() {
    let pam = Listening::start(&module_stack(), &["--min-uid=0", "--workers=1", "--peer=nobody"]);
    let request = Request {
        id: 7,
        lane: Lane::Ordinary,
        patience: Duration::from_secs(5),
        user: "alice".to_owned(),
        password: Arc::new(Password::new("right")),
        rhost: "192.0.2.7".to_owned(),
        tty: "submission".to_owned(),
    };
    let request = request.encode().expect("a possible request");
    let mut odd = Odd(0x5a51_d000_0000_0001);
    let (mut answered, mut closed) = (0, 0);
    for round in 0..400 {
        let mut frame = request.to_vec();
        for _ in 0..=odd.next(3) {
            let at = odd.next(frame.len());
            match odd.next(4) {
                0 => drop(frame.remove(at)),
                1 => frame.insert(at, odd.byte()),
                2 => frame[at] ^= 1 << odd.next(8),
                _ => frame[at] = odd.byte(),
            }
        }
        if round % 3 != 0 {
            // With a length that fits, so that what is behind it is read.
            let length = u32::try_from(frame.len().saturating_sub(4)).expect("a short frame");
            frame.truncate(frame.len().max(4));
            frame[..4].copy_from_slice(&length.to_be_bytes());
        }
        let mut stream = pam.connect();
        stream.write_all(&frame).expect("a connection");
        stream.shutdown(std::net::Shutdown::Write).expect("a connection");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("its end");
        // The greeting, and sometimes more.
        let greeting = 4 + usize::from(heard[3]);
        if heard.len() > greeting { answered += 1 } else { closed += 1 }
    }
    assert!(closed > 100, "{answered} answered, {closed} closed");
    assert!(!pam.log.text().contains("panic"), "{}", pam.log.text());
    // Still the same process, and it still knows right from wrong.
    for _ in 0..20 {
        // Somebody who only looks.
        drop(pam.connect());
    }
    let mut stream = pam.connect();
    stream.write_all(&request).expect("a connection");
    let mut buffer = FrameBuffer::default();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        let mut chunk = [0; 4_096];
        let read = stream.read(&mut chunk).expect("an answer");
        assert_ne!(read, 0);
        buffer.extend(&chunk[..read]);
        while let Some(frame) = buffer.next_frame().expect("a frame") {
            frames.push(frame);
        }
    }
    let Answer { outcome, .. } = Answer::decode(&frames[1]).expect("an answer");
    assert!(matches!(outcome, Outcome::Checked(Checked { code: Code::SUCCESS, .. })), "{outcome:?}");
    assert!(!pam.log.text().contains("Broken pipe"), "{}", pam.log.text());
}

#[test]
fn the_socket_is_for_sasld_alone_and_serves_one_connection_after_the_other() {
    let pam = Listening::start(&module_stack(), &["--min-uid=0", "--peer=nobody"]);
    let socket = std::fs::metadata(pam.socket()).expect("a socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    for _ in 0..2 {
        let mut stream = pam.connect();
        let mut frame = vec![0; 4];
        stream.read_exact(&mut frame).expect("a length");
        let mut frame = vec![0; usize::from(frame[3])];
        stream.read_exact(&mut frame).expect("a greeting");
        Hello::decode(&frame).expect("a greeting");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_that_of_another_server_stays() {
    let mut pam = Listening::start(&module_stack(), &["--min-uid=0"]);
    pam.kill();
    assert!(pam.socket().exists(), "a stale socket");
    pam.start_again();
    let identity = || std::fs::metadata(pam.socket()).expect("a socket").ino();
    let first = identity();
    let folder = pam.socket().parent().expect("a folder").to_owned();
    let hidden = || {
        let entries = std::fs::read_dir(&folder).expect("the folder").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count()
    };
    assert_eq!(hidden(), 0, "no temporary name stays behind");
    let second = Command::new(env!("CARGO_BIN_EXE_sasld-pam"))
        .arg("--peer=root")
        .arg("--listen")
        .arg(pam.socket())
        .output()
        .expect("sasld-pam");
    assert_eq!(second.status.code(), Some(71));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another server listens there already"), "{said}");
    assert_eq!((identity(), hidden()), (first, 0));
    pam.connect();
}

#[test]
fn who_only_looks_whether_somebody_is_there_is_not_worth_a_line() {
    let pam = Listening::start(&module_stack(), &["--min-uid=0"]);
    for _ in 0..20 {
        drop(pam.connect());
        // With a greeting that is never read.
        let stream = pam.connect();
        let flags = nix::sys::socket::MsgFlags::MSG_PEEK;
        assert_eq!(nix::sys::socket::recv(stream.as_raw_fd(), &mut [0], flags), Ok(1));
    }
    let mut breaks_the_format = pam.connect();
    breaks_the_format.write_all(&[0; 4]).expect("a connection");
    pam.log.wait_for(&["event=pam_client_lost"]);
    assert_eq!(pam.log.text().matches("event=pam_client_lost").count(), 1, "{}", pam.log.text());
}

#[test]
fn a_socket_passed_by_systemd_is_served_and_not_passed_on() {
    let folder = Folder::new();
    folder.write("sasld", &module_stack());
    let path = folder.path().join("sock");
    let socket = UnixListener::bind(&path).expect("a socket");
    let program = env!("CARGO_BIN_EXE_sasld-pam");
    let script = format!(
        "LISTEN_PID=$$ LISTEN_FDS=1 exec {program} --min-uid=0 --peer=root --pam-dir={} 3<&0 </dev/null",
        folder.path().display()
    );
    let mut process =
        Command::new("sh").args(["-c", &script]).stdin(OwnedFd::from(socket)).spawn().expect("sasld-pam");
    let mut stream = UnixStream::connect(&path).expect("a connection");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a greeting");
    let pid = process.id();
    let mut children = String::new();
    wait_until("a child that has said that it is ready", || {
        children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
        let child = children.trim();
        std::fs::read_link(format!("/proc/{child}/fd/0")).is_ok_and(|fd| fd == Path::new("/dev/null"))
    });
    let fds = std::fs::read_dir(format!("/proc/{}/fd", children.trim())).expect("descriptors").flatten();
    let sockets = fds.filter(|fd| {
        std::fs::read_link(fd.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    assert_eq!(sockets.count(), 1, "its channel and nothing else");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.try_into().expect("a pid")),
        nix::sys::signal::Signal::SIGTERM,
    )
    .expect("a signal");
    assert!(process.wait().expect("its end").success());
}

#[test]
fn without_descriptors_it_waits_and_does_not_spin() {
    // Its own and those of two children leave room for a few connections.
    let limit = ["sh", "-c", "ulimit -n 20; exec \"$0\" \"$@\""];
    let pam = Listening::start_under(&limit, &module_stack(), &["--min-uid=0", "--workers=1"]);
    let crowd: Vec<_> = (0..16).map(|_| pam.connect()).collect();
    pam.log.wait_for(&["event=pam_not_accepted"]);
    let before = processor_time(pam.pid());
    std::thread::sleep(Duration::from_millis(500));
    let used = processor_time(pam.pid()) - before;
    assert!(used <= 5, "{used} hundredths of a second of {:?}", Duration::from_millis(500));
    drop(crowd);
    let mut length = [0; 4];
    pam.connect().read_exact(&mut length).expect("a greeting");
    assert_eq!(pam.log.text().matches("event=pam_not_accepted").count(), 1);
}

/// In ticks, which are hundredths of a second.
fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its numbers");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}
