//! More of everything than anybody needs: connections, exchanges, logins, guesses, addresses. What honest users get
//! meanwhile is right, and afterwards nothing is left of it.

use crate::cost::{Account, Cost, count};
use crate::load;
use crate::site::{ALICE, Daemon, RIGHT, Site, WRONG, auth, auth_from, log_in};
use crate::support::peer::Peer;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

const MIB_IN_KIB: u64 = 1_024;

#[test]
fn three_hundred_connections_at_once_find_room_in_the_backlog_and_are_greeted() {
    let site = Site::new(ALICE, "");
    let daemon = site.start();
    daemon.signal(Signal::SIGSTOP);
    let waiting: Vec<OwnedFd> = (0..300)
        .map(|number| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
            // EAGAIN is a full backlog.
            let connected = connect(client.as_raw_fd(), &UnixAddr::new(&site.socket()).unwrap());
            assert_eq!(connected, Ok(()), "connection {number}");
            client
        })
        .collect();
    daemon.signal(Signal::SIGCONT);
    for client in waiting {
        let client = UnixStream::from(client);
        client.set_nonblocking(false).unwrap();
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).unwrap();
        assert!(line.starts_with("VERSION\t1\t"), "{line}");
    }
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let site = Site::new(ALICE, "");
    let daemon = site.start();
    load::fill_memory(&daemon);
    cycle(&daemon, 2_000);
    let account = Account::open(&daemon);
    let cycles = count(20_000, 1_000_000);
    cycle(&daemon, cycles);
    account.close("connect, say a part of it, close", cycles, MIB_IN_KIB);
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
}

/// Each leaves at another point.
fn cycle(daemon: &Daemon, cycles: usize) {
    for number in 0..cycles {
        let mut peer = Peer::connect(daemon.socket());
        match number % 5 {
            0 => {}
            1 => peer.skip_lines(7),
            2 => peer.send("VERSION\t1\t1\nCPI"),
            3 => peer.send("VERSION\t1\t1\nCPID\t1\nAUTH\t1\tCRAM-MD5\tservice=smtp\n"),
            _ => {
                peer.send(&format!("VERSION\t1\t1\nCPID\t1\n{}", auth(1, "PLAIN", RIGHT)));
                while !peer.line().starts_with("OK\t") {}
            }
        }
    }
}

#[test]
fn within_64_mib_a_hundred_connections_abandon_exchanges_and_honest_logins_go_on() {
    let site = Site::new(ALICE, "");
    // What is more than that is not there: the allocation fails and the daemon dies.
    let daemon = site.start_after("ulimit -d 65536");
    let mut honest = daemon.peer();
    let account = Account::open(&daemon);
    let mut floods: Vec<Peer> = (0..100).map(|_| daemon.peer()).collect();
    let (rounds, starts) = (count(10, 100), 100);
    for round in 0..rounds {
        for flood in &mut floods {
            let ids = round * starts + 1..=(round + 1) * starts;
            flood.send(&ids.map(|id| format!("AUTH\t{id}\tCRAM-MD5\tservice=smtp\n")).collect::<String>());
            flood.skip_lines(starts);
            honest.send(&auth(1, "PLAIN", RIGHT));
            assert_eq!(honest.line(), "OK\t1\tuser=alice");
        }
    }
    assert!(Cost::of(&daemon).peak_kib < 64 * MIB_IN_KIB, "{:?}", Cost::of(&daemon));
    drop(floods);
    account.close("exchanges abandoned on 100 connections", 100 * rounds * starts, 64 * MIB_IN_KIB);
}

#[test]
fn idle_connections_weigh_little_and_honest_logins_go_on() {
    let site = Site::new(ALICE, "limits: {connections: 20000}\n");
    let daemon = site.start();
    let before = Cost::of(&daemon);
    let account = Account::open(&daemon);
    let connections = count(2_000, 10_000);
    let idle: Vec<Peer> = (0..connections).map(|_| daemon.peer()).collect();
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
    let each_kib = (Cost::of(&daemon).resident_kib - before.resident_kib) / connections as u64;
    assert!(each_kib < 10, "{each_kib} KiB each");
    drop(idle);
    account.close("idle connections at a time", connections, 32 * MIB_IN_KIB);
}

#[test]
fn logins_leave_nothing_behind() {
    let site = Site::new(ALICE, "");
    let daemon = site.start();
    // One in sixteen is wrong, one does not exist.
    let request = |id: u32, number: usize| match number % 16 {
        3 => auth(id, "PLAIN", WRONG),
        7 => auth(id, "PLAIN", "AG5vYm9keQB3b25kZXI="),
        _ => auth(id, "PLAIN", RIGHT),
    };
    let judge = |number: usize, answer: &str| {
        let right = !matches!(number % 16, 3 | 7);
        assert_eq!(answer.starts_with("OK\t"), right, "{number}: {answer}");
        assert!(answer.ends_with("\tuser=alice") || !right, "{number}: {answer}");
    };
    let mut peers = [daemon.peer(), daemon.peer()];
    for peer in &mut peers {
        load::run(peer, count(10_000, 50_000), request, judge);
    }
    let account = Account::open(&daemon);
    let logins = count(100_000, 10_000_000);
    thread::scope(|scope| {
        for peer in &mut peers {
            scope.spawn(move || load::run(peer, logins / 2, request, judge));
        }
    });
    account.close("logins, one in eight refused", logins, MIB_IN_KIB);
}

#[test]
fn a_thousand_guessers_refuse_and_delay_nobody() {
    let site = Site::new(ALICE, "refusal_delay: 1s\n");
    let daemon = site.start();
    let mut guesser = daemon.peer();
    let mut honest = daemon.peer();
    let mut behind_the_same_proxy = daemon.peer();
    for round in 0..count(3, 60) {
        let first = round * 1_000;
        for hundred in 0..10 {
            let guesses = (0..100).map(|number| {
                let (high, low) = (hundred, number);
                let id = u32::try_from(first + hundred * 100 + number + 1).unwrap();
                auth_from(&format!("198.51.{high}.{low}"), id, "PLAIN", WRONG)
            });
            guesser.send(&guesses.collect::<String>());
            // Sent behind a hundred refusals that wait, on their connection and from their address.
            let id = u32::try_from(4_000_000_000_u64).unwrap() + u32::try_from(first + hundred).unwrap();
            guesser.send(&auth_from("198.51.0.1", id, "PLAIN", RIGHT));
            for peer in [&mut honest, &mut behind_the_same_proxy] {
                peer.send(&auth_from("198.51.0.1", 1, "PLAIN", RIGHT));
                assert_eq!(peer.line(), "OK\t1\tuser=alice");
            }
        }
        let (mut refused, mut let_in) = (0, 0);
        while refused < 1_000 || let_in < 10 {
            let answer = guesser.line();
            match answer.starts_with("OK\t4") {
                true => let_in += 1,
                false => {
                    assert!(answer.starts_with("FAIL\t") && answer.contains("\tuser=alice\t"), "{answer}");
                    refused += 1;
                    assert!(let_in > 0, "a right password does not wait for the wrong ones");
                }
            }
        }
    }
}

#[test]
fn addresses_without_end_fill_no_table() {
    let site = Site::new(ALICE, "");
    let daemon = site.start();
    let mut peers = [(); 4].map(|()| daemon.peer());
    let from = |number: usize, id: u32| {
        let network = format!("2001:{:x}:{:x}:{:x}::1", number >> 32, number >> 16 & 0xffff, number & 0xffff);
        auth_from(&network, id, "PLAIN", WRONG)
    };
    let refused = |_: usize, answer: &str| assert!(answer.starts_with("FAIL\t"), "{answer}");
    load::run(&mut peers[0], 10_000, |id, number| from(number, id), refused);
    let account = Account::open(&daemon);
    let addresses = count(60_000, 10_000_000);
    thread::scope(|scope| {
        for (first, peer) in (10_000..).step_by(addresses / 4).zip(&mut peers) {
            scope.spawn(move || {
                load::run(peer, addresses / 4, |id, number| from(first + number, id), refused);
            });
        }
    });
    account.close("refusals, each of another IPv6 network", addresses, 4 * MIB_IN_KIB);
    assert_eq!(log_in(&mut peers[0], 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
}

#[test]
fn every_answer_fits_into_the_smallest_readers_buffer() {
    let site = Site::new(ALICE, "usernames: {allowed_characters: \"\"}\n");
    let daemon = site.start();
    let mut peer = Peer::greeted_as(daemon.socket(), "VERSION\t1\t9\nCPID\t1\n");
    let long = [254, 255, 256, 1_000, 5_000].map(|length| "é".repeat(length / 2) + "x");
    let names = ["alice".to_owned(), "a\tb\nOK\t1\tuser=root".to_owned(), "user=bob".to_owned()];
    for name in names.iter().chain(&long) {
        let responses = [format!("\0{name}\0wonder"), format!("{name}\0{name}\0x"), name.clone()];
        for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "NOPE"] {
            for response in &responses {
                peer.send(&auth(7, mechanism, &BASE64_STANDARD.encode(response)));
                let mut answer = peer.line();
                if answer.starts_with("CONT\t") {
                    peer.send(&format!("CONT\t7\t{}\n", BASE64_STANDARD.encode(response)));
                    answer = peer.line();
                }
                assert!(answer.len() < 8_192 && answer.split('\t').count() <= 16, "{answer}");
                let users = answer.split('\t').filter(|field| field.starts_with("user=")).count();
                assert!(users <= 1 && (users == 1 || !answer.starts_with("OK")), "{answer}");
                assert!(answer.starts_with("FAIL\t7") || answer.contains("\tuser=alice"), "{answer}");
            }
        }
    }
}

#[test]
fn what_is_not_a_stream_does_no_harm() {
    let site = Site::new(ALICE, "");
    let daemon = site.start();
    let address = UnixAddr::new(&site.socket()).unwrap();
    for kind in [SockType::SeqPacket, SockType::Datagram] {
        let client = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        assert_eq!(connect(client.as_raw_fd(), &address), Err(Errno::EPROTOTYPE), "{kind:?}");
    }
    let mut peer = daemon.peer();
    for _ in 0..100 {
        peer.send("");
    }
    assert_eq!(log_in(&mut peer, 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
}
