//! Many requests over one connection, and a look at every answer.

use crate::site::{Daemon, RIGHT, auth};
use crate::support::peer::Peer;

/// Requests on the way at a time: their lines fit into what a socket holds.
const WINDOW: usize = 64;

/// Sends so many requests and hands every answer to `judge`, with the number of its request. Ids are used again once
/// they are answered.
pub fn run(
    peer: &mut Peer,
    requests: usize,
    mut request: impl FnMut(u32, usize) -> String,
    mut judge: impl FnMut(usize, &str),
) {
    let mut next = 0;
    while next < requests {
        let window = WINDOW.min(requests - next);
        let lines: String = (0..window).map(|offset| request(id(offset), next + offset)).collect();
        peer.send(&lines);
        for _ in 0..window {
            let answer = peer.line();
            let offset = offset(&answer);
            judge(next + offset, &answer);
        }
        next += window;
    }
}

fn id(offset: usize) -> u32 {
    u32::try_from(offset + 1).unwrap()
}

fn offset(answer: &str) -> usize {
    let id: usize = answer.split('\t').nth(1).unwrap().parse().unwrap();
    id - 1
}

/// Logs in so often, one after the other; every answer must be OK.
pub fn right_ones(peer: &mut Peer, logins: usize, request: impl Fn(u32) -> String) {
    run(peer, logins, |id, _| request(id), |_, answer| assert!(answer.starts_with("OK\t"), "{answer}"));
}

/// Fills what the daemon keeps of the last logins, so that it does not grow any more.
pub fn fill_memory(daemon: &Daemon) {
    right_ones(&mut daemon.peer(), 10_000, |id| auth(id, "PLAIN", RIGHT));
}
