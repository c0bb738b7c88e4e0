//! Asking for passwords: at the terminal without echo, or from standard input.
//!
//! The terminal is `/dev/tty`, in its own line mode, so the usual keys edit the line. Interrupting signals are held
//! back while it waits and received through a descriptor: the echo is on again before anything else happens, also
//! when the signal did not come from the keyboard. (rpassword 7.5 raises SIGINT before it restores the terminal.)
//! The caller hears [`PromptError`]; nothing here prints a password or keeps a copy that is not wiped.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::credential::{MAX_PASSWORD_BYTES, Password};

/// Where passwords come from; tests bring their own.
pub trait PasswordPrompt {
    /// Shows `prompt` and reads one line without echo. Blocks.
    ///
    /// # Errors
    /// See [`PromptError`].
    fn ask(&mut self, prompt: &str) -> Result<Password, PromptError>;

    /// Reads standard input to its end and removes one newline there, nothing else.
    ///
    /// # Errors
    /// See [`PromptError`].
    fn read_stdin(&mut self) -> Result<Password, PromptError>;

    /// Shows `prompt` and reads one line that everybody may see, without the blanks around it. Blocks.
    ///
    /// # Errors
    /// [`PromptError::NobodyToAsk`] if standard input is no terminal: who answers with a script is not asked.
    fn question(&mut self, prompt: &str) -> Result<String, PromptError>;
}

/// The terminal and the standard input of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terminal;

impl PasswordPrompt for Terminal {
    fn ask(&mut self, prompt: &str) -> Result<Password, PromptError> {
        let tty =
            OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(PromptError::NoTerminal)?;
        let silence = Silence::begin(&tty)?;
        write!(&tty, "{prompt}")?;
        let line = silence.read_line();
        drop(silence);
        // The newline that ended the input was not echoed either.
        writeln!(&tty)?;
        line
    }

    fn read_stdin(&mut self) -> Result<Password, PromptError> {
        read_password(io::stdin().lock())
    }

    fn question(&mut self, prompt: &str) -> Result<String, PromptError> {
        if !io::stdin().is_terminal() {
            return Err(PromptError::NobodyToAsk);
        }
        write!(io::stderr(), "{prompt}")?;
        let mut line = String::new();
        match io::stdin().read_line(&mut line)? {
            0 => Err(PromptError::EndOfInput),
            _ => Ok(line.trim().to_owned()),
        }
    }
}

/// Reads everything and removes one newline at the end.
fn read_password(input: impl Read) -> Result<Password, PromptError> {
    // Room for the newline and for one byte more, which shows that it is too long.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD_BYTES + 2));
    input.take(MAX_PASSWORD_BYTES as u64 + 2).read_to_end(&mut bytes)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() > MAX_PASSWORD_BYTES {
        return Err(PromptError::TooLong);
    }
    Ok(Password::new(core::mem::take(&mut *bytes)))
}

/// A terminal without echo and signals that wait; both as before when it is dropped.
struct Silence<'a> {
    tty: &'a File,
    before: Termios,
    held: SigSet,
    signals: SignalFd,
}

impl<'a> Silence<'a> {
    fn begin(tty: &'a File) -> Result<Self, PromptError> {
        let mut held = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP] {
            held.add(signal);
        }
        let before = tcgetattr(tty)?;
        let signals = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC)?;
        held.thread_block()?;
        let silence = Self { tty, before: before.clone(), held, signals };
        let mut silent = before;
        silent.local_flags.remove(LocalFlags::ECHO);
        silent.local_flags.insert(LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(tty, SetArg::TCSAFLUSH, &silent)?;
        Ok(silence)
    }

    /// One line, without its newline.
    fn read_line(&self) -> Result<Password, PromptError> {
        let mut tty = self.tty;
        let mut line = Zeroizing::new(vec![0; MAX_PASSWORD_BYTES + 2]);
        let mut length = 0;
        loop {
            self.wait()?;
            let read = tty.read(&mut line[length..])?;
            length += read;
            if let Some(end) = line[..length].iter().position(|byte| *byte == b'\n') {
                return Ok(Password::new(&line[..end]));
            }
            match read {
                0 if length == line.len() => return Err(PromptError::TooLong),
                0 => return Err(PromptError::EndOfInput),
                _ => {}
            }
        }
    }

    /// Until there is input, or a signal other than a request to stop.
    fn wait(&self) -> Result<(), PromptError> {
        loop {
            let mut fds = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.tty.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if fds[0].any() == Some(true) {
                let signal = self.signals.read_signal()?.and_then(|info| i32::try_from(info.ssi_signo).ok());
                match signal {
                    Some(signal) if signal != Signal::SIGTSTP as i32 => {
                        return Err(PromptError::Interrupted { signal });
                    }
                    // To stop here would leave the shell with a silent terminal.
                    _ => continue,
                }
            }
            return Ok(());
        }
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // Whatever was typed too much goes, it could be a password for the shell to run.
        let _ = tcsetattr(self.tty, SetArg::TCSAFLUSH, &self.before);
        let _ = self.held.thread_unblock();
    }
}

/// Why there is no password.
#[derive(Debug, Error)]
pub enum PromptError {
    /// There is nobody to ask.
    #[error("there is no terminal to ask at ({0}); use --password-stdin")]
    NoTerminal(io::Error),
    /// Standard input is no terminal.
    #[error("there is no terminal to ask at")]
    NobodyToAsk,
    /// ^D, or the terminal hung up.
    #[error("the input ended before the answer")]
    EndOfInput,
    /// Longer than [`MAX_PASSWORD_BYTES`].
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    /// A signal came, the number of which this is.
    #[error("interrupted")]
    Interrupted {
        /// 2 for ^C.
        signal: i32,
    },
    /// The terminal or standard input failed.
    #[error("cannot read the password: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for PromptError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}
