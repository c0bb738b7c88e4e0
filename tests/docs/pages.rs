//! The pages whose command blocks run: what each takes for granted, and what is true after its last block.
//!
//! Both are shell, with the functions of `sandbox`. A page about an error has the error before its commands, with the
//! words of its title, and not after them.

use super::commands::run;

/// A page and its surroundings.
pub struct Page {
    /// From the root of the repository.
    pub file: &'static str,
    pub given: &'static str,
    pub then: &'static str,
}

/// Pages with commands that do not run here, and why.
pub const NOT_RUN: &[(&str, &str)] = &[("docs/performance.md", "benchmarks, for minutes on a quiet machine")];

macro_rules! pages {
    ($($name:ident: $file:literal, $given:literal, $then:literal;)*) => {
        pub const PAGES: &[Page] = &[$(Page { file: $file, given: $given, then: $then }),*];
        $(#[test] fn $name() { run($file); })*
    };
}

pages! {
    the_five_minutes_of_the_readme: "README.md", "postfix start", "log_in CRAM-MD5 | shows '235 2.7.0'";
    the_configuration: "docs/configuration.md", "alice; systemctl start sasld; postfix start", "
        test $(stat -c %U /proc/$(pgrep -x sasld)) = _sasld
        postconf -e smtpd_sasl_auth_enable=yes smtpd_sasl_type=dovecot; age; postfix reload
        log_in | shows '235 2.7.0'";
    the_secrets_file: "docs/secrets-file.md", "
        install -D -m 644 packaging/sasld.yaml /etc/sasld/sasld.yaml
        useradd --system --user-group _sasld
        install -D -m 600 /dev/null /etc/dovecot/users
        echo 'bob:{PLAIN}wonderland' >/etc/dovecot/users",
        "sasld user list | shows bob";
    other_mail_servers: "docs/clients.md", "alice; systemctl start sasld; postfix start", "log_in | shows '235 2.7.0'";
}
