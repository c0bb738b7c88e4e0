//! Words as a shell reads them: doctor prints commands, and people paste them.

/// The word, quoted if a shell would read anything into it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;
    use std::process::Command;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in ["plain/path-1.x", "", "two words", "it's", "$(id)`id`\\\"", "a=b c", "*?[~#&;|<>(){}!\n"]
        {
            let script = format!("printf %s {}", quote(word));
            let printed = Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
            assert_eq!(String::from_utf8(printed).unwrap(), word);
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
