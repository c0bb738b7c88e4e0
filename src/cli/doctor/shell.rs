//! Words as a shell reads them: doctor prints commands, and people paste them.

use std::fmt::Write as _;

/// The word, quoted if a shell would read anything into it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if word.contains(char::is_control) {
        return with_escapes(word);
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What a terminal would act on instead of showing it, as bash, zsh and ksh read it.
fn with_escapes(word: &str) -> String {
    let mut quoted = String::from("$'");
    for c in word.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\'' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    // Three digits of eight: a letter behind them is no part of the number.
                    let _ = write!(quoted, "\\{byte:03o}");
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::quote;
    use std::process::Command;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in [
            "\u{1b}[31mred\u{9b}1\r\\n'",
            "plain/path-1.x",
            "",
            "two words",
            "it's",
            "$(id)`id`\\\"",
            "a=b c",
            "*?[~#&;|<>(){}!\n",
        ] {
            let script = format!("printf %s {}", quote(word));
            let printed = Command::new("bash").args(["-c", &script]).output().unwrap().stdout;
            assert_eq!(String::from_utf8(printed).unwrap(), word);
            assert!(!quote(word).contains(char::is_control));
        }
    }

    #[test]
    fn a_plain_setting_stays_readable() {
        assert_eq!(
            quote("submission/inet/smtpd_sasl_auth_enable=yes"),
            "submission/inet/smtpd_sasl_auth_enable=yes"
        );
    }
}
