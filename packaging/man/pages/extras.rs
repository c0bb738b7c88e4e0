//! What a command's manual page says beyond `--help`: files and examples.
//!
//! One entry for each command. `tests/manuals.rs` fails when one is missing, and parses every example.

/// A file that a command reads or writes.
pub struct File {
    pub path: &'static str,
    pub about: &'static str,
}

/// What one would type, and why.
pub struct Example {
    pub about: &'static str,
    pub commands: &'static str,
}

/// The additions to one page.
pub struct Extra {
    /// The command without `sasld`; empty for the program itself.
    pub command: &'static str,
    pub files: &'static [File],
    pub examples: &'static [Example],
}

/// The same for every command; a command's own description says more.
pub const EXIT_STATUS: [(u8, &str); 10] = [
    (0, "Done; the answer is yes."),
    (1, "The answer is no: refused, or something was found."),
    (2, "Errors were found, where 1 means warnings."),
    (64, "The command line makes no sense."),
    (65, "A server's answer or the contents of a file make no sense."),
    (69, "Something that should be there is not, or is taken."),
    (74, "Output could not be written."),
    (75, "It could not be decided; try again."),
    (77, "This user may not do it; somebody else may."),
    (78, "The configuration is wrong."),
];

const CONFIGURATION: File = File {
    path: "/etc/sasld/sasld.yaml",
    about: "The configuration; every key has a default. See sasld.yaml(5).",
};
const CONF_D: File = File {
    path: "/etc/sasld/conf.d/*.yaml",
    about: "Read after it, in the order of their names; a top-level key there replaces the same key before it.",
};
const SECRETS: File = File {
    path: "/etc/sasld/secrets",
    about: "The users, unless the configuration names another file. See sasld-secrets(5).",
};
const LOCK: File =
    File { path: "/etc/sasld/.secrets.lock", about: "Locked while the file of users is changed." };
const SOCKET: File = File {
    path: "/var/spool/postfix/private/auth",
    about: "The socket that Postfix calls private/auth, unless the configuration names others.",
};

const CONTROL: File = File {
    path: "/run/sasld/control",
    about: "The daemon's control socket, unless the configuration names another.",
};

const RUNNING: &[File] = &[CONFIGURATION, CONTROL];
const POSTFIX: File = File {
    path: "/etc/postfix/main.cf, /etc/postfix/master.cf",
    about: "Postfix's settings, through postconf(1).",
};

const DOCTOR: &[File] = &[CONFIGURATION, CONF_D, SECRETS, SOCKET, POSTFIX];
const READ: &[File] = &[CONFIGURATION, CONF_D, SECRETS];
const EDIT: &[File] = &[CONFIGURATION, CONF_D, SECRETS, LOCK];
const SERVE: &[File] = &[CONFIGURATION, CONF_D, SECRETS, SOCKET];

/// All of them.
pub const EXTRAS: &[Extra] = &[
    Extra {
        command: "",
        files: SERVE,
        examples: &[Example {
            about: "A user, a look at everything, and a login as Postfix would have it:",
            commands: "sasld user add alice\nsasld check\nsasld test /var/spool/postfix/private/auth --user alice",
        }],
    },
    Extra {
        command: "serve",
        files: SERVE,
        examples: &[
            Example { about: "In the foreground, with the log on the terminal:", commands: "sasld serve" },
            Example {
                about: "With another configuration:",
                commands: "sasld serve --config /srv/mail/sasld.yaml",
            },
        ],
    },
    Extra {
        command: "check",
        files: READ,
        examples: &[
            Example { about: "Before a reload:", commands: "sasld check" },
            Example { about: "In a script, which hears of trouble alone:", commands: "sasld check --quiet" },
        ],
    },
    Extra {
        command: "test",
        files: &[SOCKET],
        examples: &[
            Example {
                about: "What would Postfix get for alice?",
                commands: "sasld test /var/spool/postfix/private/auth --user alice",
            },
            Example {
                about: "Only CRAM-MD5, on a TCP port, without TLS:",
                commands: "sasld test 127.0.0.1:12345 --user alice --mechanism CRAM-MD5 --no-tls",
            },
        ],
    },
    Extra {
        command: "hash",
        files: &[],
        examples: &[
            Example { about: "The verifier of a password that is asked for:", commands: "sasld hash" },
            Example {
                about: "Two side by side, for PLAIN and for CRAM-MD5:",
                commands: "sasld hash --scheme ARGON2ID --scheme CRAM-MD5",
            },
        ],
    },
    Extra {
        command: "status",
        files: RUNNING,
        examples: &[
            Example { about: "One screen about the running daemon:", commands: "sasld status" },
            Example { about: "For programs:", commands: "sasld status --json" },
        ],
    },
    Extra {
        command: "why",
        files: RUNNING,
        examples: &[
            Example { about: "Why could alice not log in?", commands: "sasld why alice" },
            Example { about: "Only the last time:", commands: "sasld why alice --last 1" },
        ],
    },
    Extra {
        command: "user",
        files: EDIT,
        examples: &[Example {
            about: "The life of a user:",
            commands: "sasld user add alice\nsasld user passwd alice\nsasld user list\nsasld user remove alice",
        }],
    },
    Extra {
        command: "user add",
        files: EDIT,
        examples: &[
            Example { about: "With a password that is asked for twice:", commands: "sasld user add alice" },
            Example {
                about: "From a script; the password comes on standard input:",
                commands: "sasld user add alice --password-stdin",
            },
        ],
    },
    Extra {
        command: "user passwd",
        files: EDIT,
        examples: &[
            Example { about: "A new password:", commands: "sasld user passwd alice" },
            Example {
                about: "One that CRAM-MD5 can use, and PLAIN by a strong hash:",
                commands: "sasld user passwd alice --scheme ARGON2ID --scheme CRAM-MD5",
            },
        ],
    },
    Extra {
        command: "user remove",
        files: EDIT,
        examples: &[Example { about: "Two users at once:", commands: "sasld user remove alice bob" }],
    },
    Extra {
        command: "user list",
        files: READ,
        examples: &[
            Example { about: "For people:", commands: "sasld user list" },
            Example { about: "For programs:", commands: "sasld user list --json" },
        ],
    },
    Extra {
        command: "user show",
        files: READ,
        examples: &[
            Example {
                about: "What is known about alice, and what works for her:",
                commands: "sasld user show alice",
            },
            Example { about: "For programs:", commands: "sasld user show alice bob --json" },
        ],
    },
    Extra {
        command: "user lock",
        files: EDIT,
        examples: &[Example { about: "No logins for now:", commands: "sasld user lock alice" }],
    },
    Extra {
        command: "user unlock",
        files: EDIT,
        examples: &[Example { about: "Logins as before:", commands: "sasld user unlock alice" }],
    },
    Extra {
        command: "user verify",
        files: READ,
        examples: &[
            Example {
                about: "Is this alice's password? It is asked for:",
                commands: "sasld user verify alice",
            },
            Example {
                about: "In a script, by the exit status:",
                commands: "sasld user verify alice --quiet --password-stdin",
            },
        ],
    },
    Extra {
        command: "user edit",
        files: EDIT,
        examples: &[Example {
            about: "With the editor of your choice:",
            commands: "EDITOR=vim sasld user edit",
        }],
    },
    Extra {
        command: "user import",
        files: EDIT,
        examples: &[
            Example {
                about: "What would become of Dovecot's users, and then do it:",
                commands: "sasld user import /etc/dovecot/users\nsasld user import /etc/dovecot/users --apply",
            },
            Example {
                about: "From Cyrus SASL, with the realm as a part of the name:",
                commands: "sasld user import --format sasldb --realm keep /etc/sasldb2 --apply",
            },
            Example {
                about: "From lines of name:password, where the passwords stand as they are:",
                commands: "sasld user import --format list --default-scheme PLAIN users.txt --apply",
            },
        ],
    },
    Extra {
        command: "user export",
        files: READ,
        examples: &[Example {
            about: "For a Dovecot, which reads one verifier for each user:",
            commands: "sasld user export --strongest > users",
        }],
    },
    Extra {
        command: "doctor",
        files: DOCTOR,
        examples: &[
            Example { about: "What keeps users from logging in?", commands: "sasld doctor" },
            Example {
                about: "With a login, over SMTP and STARTTLS:",
                commands: "sasld doctor --user alice --smtp mail.example.com:587",
            },
        ],
    },
    Extra {
        command: "setup",
        files: DOCTOR,
        examples: &[Example { about: "The commands for Postfix, not run:", commands: "sasld setup postfix" }],
    },
    Extra {
        command: "setup postfix",
        files: DOCTOR,
        examples: &[
            Example { about: "What would be changed, and how to undo it:", commands: "sasld setup postfix" },
            Example {
                about: "Do it, for port 465:",
                commands: "sasld setup postfix --service submissions --apply",
            },
        ],
    },
    Extra {
        command: "probe",
        files: &[SOCKET],
        examples: &[
            Example {
                about: "Who listens there, and what is on offer?",
                commands: "sasld probe /var/spool/postfix/private/auth",
            },
            Example { about: "The same over TCP:", commands: "sasld probe 127.0.0.1:12345" },
        ],
    },
    Extra {
        command: "socket-guard",
        files: &[SOCKET],
        examples: &[Example {
            about: "As the socket unit asks, before systemd makes the socket:",
            commands: "sasld socket-guard /var/spool/postfix/private/auth",
        }],
    },
];

/// What there is for the command `path`, such as `user add`.
pub fn of(path: &str) -> &'static Extra {
    const NOTHING: Extra = Extra { command: "", files: &[], examples: &[] };
    EXTRAS.iter().find(|extra| extra.command == path).unwrap_or(&NOTHING)
}
