//! The floor: a server that parses nothing. It shows what a login costs when only the kernel works, and that the load
//! client is faster than what it measures.
//!
//! Single-threaded epoll, one read and one write per message. Each line is answered by a canned reply, as many CONT
//! lines as the mechanism has challenges and then OK; only the request id is copied from the line, because the client
//! checks it. Runs in a process of its own (`--floor`), so that its CPU time can be read like any server's. A message
//! that is not whole lines closes that connection; the client reports it.

use std::{
    convert::Infallible,
    env,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Command,
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use crate::{Outcome, server::Plan};

/// The argument that makes this program a floor; socket and number of challenges follow.
pub const ARGUMENT: &str = "--floor";

/// The name in every OK.
pub const CANNED_USER: &str = "floor";

const GREETING: &[u8] = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\n\
    MECH\tCRAM-MD5\tdictionary\tactive\nSPID\t1\nCUID\t1\nCOOKIE\t00000000000000000000000000000000\nDONE\n";
/// `<1896.697170952@postoffice.example.net>`, the form of RFC 2195 §2.
const CHALLENGE: &[u8] = b"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UuZXhhbXBsZS5uZXQ+";
/// The listening socket among the epoll events.
const LISTENER: usize = 0;
/// VERSION and CPID.
const HANDSHAKE_LINES: u32 = 2;

/// This program again, as a floor that sends `challenges` CONT lines in each login.
pub fn plan(dir: &Path, challenges: u8) -> Outcome<Plan> {
    let socket = dir.join("auth");
    let mut command = Command::new(env::current_exe()?);
    command.arg(ARGUMENT).arg(&socket).arg(challenges.to_string());
    Ok(Plan { command, socket })
}

/// Serves on `socket` until the process is killed.
pub fn serve(socket: &Path, challenges: u8) -> Outcome<Infallible> {
    let listener = UnixListener::bind(socket)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER as u64))?;
    // Indexed by the number in the epoll event. The listener's place stays empty, and so do those of the departed.
    let mut clients = vec![None];
    let mut events = vec![EpollEvent::empty(); 1024];
    let mut buffers = Buffers { input: vec![0; 4096], output: Vec::with_capacity(4096) };
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            // Somebody has begun to trace us.
            Err(Errno::EINTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            let number = usize::try_from(event.data())?;
            if number == LISTENER {
                let (mut stream, _) = listener.accept()?;
                stream.write_all(GREETING)?;
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, clients.len() as u64))?;
                clients.push(Some(Client {
                    stream,
                    handshake_lines_left: HANDSHAKE_LINES,
                    challenges_left: challenges,
                }));
            } else if let Some(client) = &mut clients[number]
                && !client.answer(challenges, &mut buffers)
            {
                clients[number] = None;
            }
        }
    }
}

/// One pair for all clients.
struct Buffers {
    input: Vec<u8>,
    output: Vec<u8>,
}

struct Client {
    stream: UnixStream,
    handshake_lines_left: u32,
    /// CONT lines still to be sent in this login.
    challenges_left: u8,
}

impl Client {
    /// Answers what has arrived; false when the connection is over.
    fn answer(&mut self, challenges: u8, Buffers { input, output }: &mut Buffers) -> bool {
        let Ok(length) = self.stream.read(input) else {
            return false;
        };
        let Some(lines) = input[..length].strip_suffix(b"\n") else {
            return false;
        };
        output.clear();
        for line in lines.split(|&byte| byte == b'\n') {
            if self.handshake_lines_left > 0 {
                self.handshake_lines_left -= 1;
                continue;
            }
            let id = line.split(|&byte| byte == b'\t').nth(1).unwrap_or_default();
            if self.challenges_left > 0 {
                self.challenges_left -= 1;
                append(output, &[b"CONT\t", id, b"\t", CHALLENGE, b"\n"]);
            } else {
                self.challenges_left = challenges;
                append(output, &[b"OK\t", id, b"\tuser=", CANNED_USER.as_bytes(), b"\n"]);
            }
        }
        output.is_empty() || self.stream.write_all(output).is_ok()
    }
}

fn append(output: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        output.extend_from_slice(part);
    }
}
