//! What the load client says: the lines of one login by PLAIN, LOGIN or CRAM-MD5, as Postfix's smtpd would send them.
//!
//! Everything that depends on the user alone is encoded once, before anything is measured: base64 of the credentials,
//! and HMAC-MD5 with the password mixed in. What is left per login is copying bytes and, for CRAM-MD5, two MD5 blocks.
//! A challenge that cannot be decoded is an error that ends the run: the numbers would mean nothing.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;

use crate::Outcome;

/// Longest challenge the client decodes. Both servers stay under 80 bytes.
const MAX_CHALLENGE_BYTES: usize = 256;

/// A mechanism as it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616 with an initial response: one line each way.
    Plain,
    /// draft-murchison-sasl-login without an initial response: three lines each way.
    Login,
    /// RFC 2195: two lines each way.
    CramMd5,
}

impl Mechanism {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Login, Self::CramMd5];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::CramMd5 => "CRAM-MD5",
        }
    }

    /// How many CONT lines the server sends before its verdict.
    pub fn challenges(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Login => 2,
            Self::CramMd5 => 1,
        }
    }
}

/// A user with everything encoded that can be encoded in advance.
pub struct User {
    pub name: String,
    pub password: String,
    plain_response: String,
    login_responses: [String; 2],
    cram_md5_key: Hmac<Md5>,
}

impl User {
    /// User number `n`; the same name and password in every run.
    pub fn numbered(n: usize) -> Self {
        Self::new(format!("user{n:07}@example.com"), format!("kestrel-{n:07}"))
    }

    pub fn new(name: String, password: String) -> Self {
        let key = Hmac::new_from_slice(password.as_bytes()).expect("HMAC takes keys of any length");
        Self {
            plain_response: STANDARD.encode(format!("\0{name}\0{password}")),
            login_responses: [STANDARD.encode(&name), STANDARD.encode(&password)],
            cram_md5_key: key,
            name,
            password,
        }
    }

    /// This user's line of a secrets file, with the verifier that costs both servers least and serves all mechanisms.
    pub fn secrets_line(&self) -> String {
        format!("{}:{{PLAIN}}{}\n", self.name, self.password)
    }

    /// Appends the AUTH line that opens a login.
    pub fn write_auth(&self, mechanism: Mechanism, id: u32, out: &mut Vec<u8>) {
        let name = mechanism.name();
        write!(out, "AUTH\t{id}\t{name}").expect("a Vec takes every write");
        out.extend_from_slice(b"\tservice=smtp\tnologin\tlip=192.0.2.1\trip=198.51.100.7\tsecured");
        if mechanism == Mechanism::Plain {
            out.extend_from_slice(b"\tresp=");
            out.extend_from_slice(self.plain_response.as_bytes());
        }
        out.push(b'\n');
    }

    /// Appends the CONT line that answers challenge number `nth`, counted from 0.
    pub fn write_cont(
        &self,
        mechanism: Mechanism,
        id: u32,
        nth: u8,
        challenge: &[u8],
        out: &mut Vec<u8>,
    ) -> Outcome<()> {
        write!(out, "CONT\t{id}\t").expect("a Vec takes every write");
        match (mechanism, nth) {
            (Mechanism::Login, 0 | 1) => {
                out.extend_from_slice(self.login_responses[usize::from(nth)].as_bytes());
            }
            (Mechanism::CramMd5, 0) => self.write_cram_md5_response(challenge, out)?,
            _ => return Err(format!("{} got challenge number {nth}", mechanism.name()).into()),
        }
        out.push(b'\n');
        Ok(())
    }

    /// RFC 2195 §2: `name SP lower-case-hex(HMAC-MD5(password, challenge))`, in base64.
    fn write_cram_md5_response(&self, challenge: &[u8], out: &mut Vec<u8>) -> Outcome<()> {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut decoded = [0; MAX_CHALLENGE_BYTES];
        let length = STANDARD.decode_slice(challenge, &mut decoded).map_err(|e| e.to_string())?;
        let mut hmac = self.cram_md5_key.clone();
        hmac.update(&decoded[..length]);

        let mut response = [0; 320];
        let name = self.name.as_bytes();
        let total = name.len() + 33;
        response[..name.len()].copy_from_slice(name);
        response[name.len()] = b' ';
        let digits = response[name.len() + 1..total].chunks_exact_mut(2);
        for (digit, byte) in digits.zip(hmac.finalize().into_bytes()) {
            digit[0] = HEX[usize::from(byte >> 4)];
            digit[1] = HEX[usize::from(byte & 15)];
        }

        let start = out.len();
        out.resize(start + total.div_ceil(3) * 4, 0);
        let encoded = STANDARD.encode_slice(&response[..total], &mut out[start..]);
        encoded.map_err(|e| e.to_string())?;
        Ok(())
    }
}
