//! `make timing`: can a stranger tell from the time that an answer takes whether a user exists, or how much of a secret
//! was right?
//!
//! As in dudect: two classes of inputs in random order, the time of each, Welch's t between the classes; |t| over 4.5
//! means that they differ. What the operating system interrupts is no news about secrets, so slow outliers are cut at
//! percentiles of both classes together, and the largest |t| of all cuts counts.
//!
//! *In process* are the comparisons of secrets: a wrong one that differs in its first byte, beside one that differs in its
//! last. *Through the socket* is what a stranger sees: an unknown user beside a wrong password, by every mechanism, with
//! the refusal delay of a second and thousands of logins open at a time. Prints a table for `docs/assurance.md`; the
//! exit status is 1 if a difference was seen. `SAMPLES` is how many there are in process, a tenth of it on the socket.
//!
//! What the same verdicts take in process is a second table, whose |t| is not held against the limit: a look-up that
//! finds nobody takes other steps than one that does, and so many samples tell a single cycle. The refusal delay hides it;
//! that a refusal is set for the same moment whatever its verdict took is checked for every sample.

mod inner;
mod socket;
mod welch;

use sasld::credential::{CramMd5Key, Password, Verifier};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;
use welch::{LIMIT, Samples};

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let samples =
        std::env::var("SAMPLES").ok().map_or(1_000_000, |text| text.parse().expect("SAMPLES is a number"));
    println!("| what is compared | samples | largest \\|t\\| |");
    println!("|---|---:|---:|");
    let mut worst = 0.0_f64;
    let mut say = |name: &str, samples: &Samples| {
        let t = samples.largest_t();
        worst = worst.max(t);
        println!("| {name} | {} | {t:.2} |", samples.len());
    };
    comparisons(samples, &mut say);
    for (name, found) in socket::unknown_beside_wrong(samples / 10) {
        say(&name, &found);
    }
    println!(
        "\n| verdict in process | samples | unknown user, median | wrong password, median | largest \\|t\\| |"
    );
    println!("|---|---:|---:|---:|---:|");
    for (mechanism, found) in inner::unknown_beside_wrong(samples) {
        let [unknown, wrong] = found.median_nanos();
        println!(
            "| {mechanism} | {} | {unknown:.0} ns | {wrong:.0} ns | {:.0} |",
            found.len(),
            found.largest_t()
        );
    }
    if worst < LIMIT { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Comparisons of secrets, each with an input that is wrong in its first byte beside one that is wrong in its last.
fn comparisons(samples: usize, say: &mut impl FnMut(&str, &Samples)) {
    let passwords: [&[u8]; 2] =
        [b"Xonderful-password-with-some-length", b"wonderful-password-with-some-lengtX"];
    for (scheme, stored) in [
        ("{PLAIN}", "{PLAIN}wonderful-password-with-some-length"),
        ("{SSHA256}", SSHA256),
        ("{SSHA512}", SSHA512),
        ("{CRAM-MD5}", CRAM_MD5),
    ] {
        let stored = Verifier::parse(stored.as_bytes()).expect("a verifier");
        let found = in_process(samples, passwords, Password::new, |password| {
            assert!(black_box(stored.verify(password)).is_none());
        });
        say(&format!("`{scheme}` and a password"), &found);
    }
    let key = CramMd5Key::from_password(&Password::new(*b"wonderful-password-with-some-length"));
    let right = key.respond(CHALLENGE);
    let (mut first, mut last) = (right, right);
    first[0] ^= 1;
    last[15] ^= 1;
    let copy = |digest: &[u8]| <[u8; 16]>::try_from(digest).expect("16 bytes");
    let found = in_process(samples, [&first, &last], copy, |digest| {
        assert!(black_box(key.verify(CHALLENGE, digest)).is_none());
    });
    say("CRAM-MD5 digest", &found);
}

const CHALLENGE: &[u8] = b"<1.2@mail.example.com>";
/// Of `wonderful-password-with-some-length`; any other would do, for no input here is right.
const SSHA256: &str = "{SSHA256}MTHLuAzF1r2M8OGBhf3QNAuwlUWMPPGqMfsWm4jIhS8xMjM0NTY3OA==";
const SSHA512: &str =
    "{SSHA512}3ShoSsYylWhYBPmYLBLPWMsdqUFmDlSSpoURtOyEFMsB8ey52xMq0+cfaTm85RotK4gvIMfY/L8x/nn7YudHOFNBTFQ=";
const CRAM_MD5: &str = "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56";

/// The times of `compare`, whose input is made anew for every sample, so that the inputs of both classes come to lie in
/// the same place: a place has a time of its own (what it shares a cache line with), which would be taken for a difference.
fn in_process<'a, I>(
    samples: usize,
    inputs: [&'a [u8]; 2],
    prepare: impl Fn(&'a [u8]) -> I,
    compare: impl Fn(&I),
) -> Samples {
    let mut found = Samples::with_capacity(samples);
    let mut dice = welch::Dice::new();
    for round in 0..samples + samples / 10 {
        let class = dice.coin();
        let input = prepare(black_box(inputs[usize::from(class)]));
        let began = Instant::now();
        // One comparison is as short as the clock is coarse.
        for _ in 0..16 {
            compare(black_box(&input));
        }
        let took = began.elapsed();
        // The first tenth warms up.
        if round >= samples / 10 {
            found.add(class, took);
        }
    }
    found
}
