//! Postfix's services: which let users log in, how they ask, and settings that do not do what was meant.

use super::listening::{ask_sasld, is_our_path};
use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::postfix::{PARAMETERS, Service};
use crate::cli::doctor::shell::quote;

/// How alike two names are, from 0 to 1, when one of them is a misspelt other.
const ALIKE: f64 = 0.93;

pub fn postfix(facts: &Facts) -> Vec<Finding> {
    if facts.instances.is_empty() {
        return vec![Finding::note("there is no Postfix on this machine, or postconf is not in PATH")];
    }
    let mut findings = Vec::new();
    for instance in &facts.instances {
        let Some(trouble) = &instance.trouble else { continue };
        let finding = Finding::error(trouble).at(instance.directory.display());
        findings.push(match faulty_line(trouble) {
            Some((file, line)) => finding
                .why(
                    "postconf cannot read this configuration, and neither can Postfix. What the line should have said is \
                     for you to decide; the command makes a comment of it.",
                )
                .fix(instance.then_reload(format!("sed -i --follow-symlinks '{line}s/^/#/' {}", quote(file)))),
            None => finding.why(
                "postconf cannot read this configuration, and neither can Postfix. No command can know what should be \
                 there: a backup does.",
            ),
        });
    }
    findings
}

/// File and line in `postconf: fatal: FILE, line 7: …` and `postconf: fatal: file FILE: line 3: …`.
fn faulty_line(trouble: &str) -> Option<(&str, u64)> {
    let (_, about) = trouble.split_once("fatal: ")?;
    let (file, rest) = about.split_once(", line ").or_else(|| about.split_once(": line "))?;
    let (line, _) = rest.split_once(':')?;
    Some((file.strip_prefix("file ").unwrap_or(file), line.parse().ok()?))
}

pub fn sasl_types(facts: &Facts) -> Vec<Finding> {
    let lacking = facts.instances.iter().filter(|instance| {
        instance.trouble.is_none() && !instance.sasl_types.iter().any(|name| name == "dovecot")
    });
    lacking
        .map(|instance| {
            Finding::error(format!(
                "postconf -a does not list dovecot, only: {}",
                instance.sasl_types.join(" ")
            ))
            .at(instance.directory.display())
            .why(
                "This Postfix cannot ask over Dovecot's protocol, so it cannot ask sasld. Debian's can, which is the one that \
                 the command installs. If yours was built by hand, how to build it is for you to decide.",
            )
            .fix("apt-get install --reinstall postfix")
        })
        .collect()
}

pub fn misspelt(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for instance in &facts.instances {
        let lines = instance.warnings.iter().filter_map(|line| line.split_once(": unused parameter: "));
        for (file, setting) in lines {
            let Some((wrong, value)) = setting.split_once('=') else { continue };
            let Some(right) = nearest(wrong) else { continue };
            let in_master = file.ends_with("master.cf");
            let owner = instance.services.iter().find(|service| service.overrides.contains_key(wrong));
            let postconf = instance.command("postconf");
            let fix = match (in_master, owner) {
                (true, Some(service)) => {
                    let id = service.id();
                    let set = instance.set_only_for(service, &[(right, value)]);
                    format!("{postconf} -PX {} && {set}", quote(&format!("{id}/{wrong}")))
                }
                _ => format!("{postconf} -X {} && {}", quote(wrong), instance.set(&[(right, value)])),
            };
            findings.push(
                Finding::warning(format!("{wrong} is no setting of Postfix; is it {right}?"))
                    .at(if in_master { "master.cf" } else { "main.cf" })
                    .why("Postfix ignores what it does not know, without a word in its log.")
                    .fix(fix),
            );
        }
    }
    findings.dedup_by(|one, other| one.what == other.what && one.fix == other.fix);
    findings
}

fn nearest(wrong: &str) -> Option<&'static str> {
    let likeness = |right: &&str| strsim::jaro_winkler(wrong, right);
    let best = PARAMETERS.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(best) > ALIKE).then_some(*best)
}

pub fn client_settings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for instance in &facts.instances {
        for (wrong, default) in [("smtp_sasl_type", "cyrus"), ("smtp_sasl_path", "")] {
            let value = instance.get(wrong);
            let meant_for_smtpd = match wrong {
                "smtp_sasl_path" => is_our_path(facts, instance, value),
                _ => value == "dovecot",
            };
            if value == default || !meant_for_smtpd {
                continue;
            }
            let right = wrong.replace("smtp_", "smtpd_");
            let unset = format!("{} -X {wrong}", instance.command("postconf"));
            findings.push(
                Finding::warning(format!("{wrong} = {value}"))
                    .at(facts.at(instance, None))
                    .why(format!(
                        "smtp_… is Postfix as a client that logs in elsewhere, which dovecot cannot do for it: mail \
                         to a relayhost fails. The server's setting is {right}."
                    ))
                    .fix(format!("{unset} && {}", instance.set(&[(&right, value)]))),
            );
        }
    }
    findings
}

pub fn auth_enabled(facts: &Facts) -> Vec<Finding> {
    let without = facts.instances.iter().filter(|instance| {
        instance.trouble.is_none() && !instance.services.is_empty() && instance.with_auth().next().is_none()
    });
    without
        .map(|instance| {
            Finding::error("no service lets users log in: smtpd_sasl_auth_enable is no everywhere")
                .at(facts.at(instance, None))
                .why("AUTH is offered to nobody: mail programs say that the server does not allow logins.")
                .fix(facts.sasld_and_postfix("setup postfix --apply", instance))
        })
        .collect()
}

pub fn sasl_type(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for instance in &facts.instances {
        for service in instance.with_auth().filter(|service| !service.asks_sasld()) {
            findings.push(
                Finding::error(format!("smtpd_sasl_type = {}", service.get("smtpd_sasl_type")))
                    .at(facts.at(instance, Some(service)))
                    .why("This service asks Cyrus SASL for passwords, and never sasld.")
                    // The path is a name for Cyrus SASL then, and perhaps nobody's socket.
                    .fix(ask_sasld(facts, instance, service, &[("smtpd_sasl_type", "dovecot")])),
            );
        }
    }
    findings
}

pub fn port_25(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for instance in &facts.instances {
        let others = instance.with_auth().any(|service| !service.is_port_25());
        for service in instance.with_auth().filter(|service| service.is_port_25()) {
            let off = instance.set_only_for(service, &[("smtpd_sasl_auth_enable", "no")]);
            let fix = match others {
                true => off,
                // Users need another door first. Setup ends with doctor's exit status, 0 to 2, unless it refuses.
                false => format!(
                    "{}; [ $? -le 2 ] && {off}",
                    facts.sasld_and_postfix("setup postfix --apply", instance)
                ),
            };
            findings.push(
                Finding::warning("users can log in where mail from other servers comes in")
                    .at(facts.at(instance, Some(service)))
                    .why(
                        "When sasld cannot be reached, smtpd ends, and then no mail comes in at all. And nearly everybody \
                         who logs in there guesses passwords. Users belong on submission (587) or submissions (465).",
                    )
                    .fix(fix),
            );
        }
    }
    findings
}

pub fn broken_clients(facts: &Facts) -> Vec<Finding> {
    let on = |service: &&Service| service.yes("broken_sasl_auth_clients");
    let mut findings = Vec::new();
    for instance in &facts.instances {
        if let Some(service) = instance.with_auth().find(on) {
            findings.push(
                Finding::note("broken_sasl_auth_clients = yes")
                    .at(facts.at(instance, Some(service)))
                    .why("It repeats the offer as \"AUTH=\", for Outlook Express 4 of 1997. Nothing needs it today.")
                    .fix(instance.unset_for(service, "broken_sasl_auth_clients")),
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{faulty_line, nearest};

    #[test]
    fn the_line_that_postconf_cannot_read_is_found_in_its_complaint() {
        let missing =
            "postconf: fatal: /etc/postfix/main.cf, line 7: missing '=' after attribute name: \"oops\"";
        assert_eq!(faulty_line(missing), Some(("/etc/postfix/main.cf", 7)));
        let count = "postconf: fatal: file /etc/postfix/master.cf: line 3: bad field count";
        assert_eq!(faulty_line(count), Some(("/etc/postfix/master.cf", 3)));
        assert_eq!(
            faulty_line("postconf: fatal: open /etc/postfix/main.cf: No such file or directory"),
            None
        );
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        assert_eq!(nearest("smtpd_sasl_pth"), Some("smtpd_sasl_path"));
        assert_eq!(nearest("smtpd_sasl_auth_enabled"), Some("smtpd_sasl_auth_enable"));
        assert_eq!(nearest("smtpd_sasl_security_option"), Some("smtpd_sasl_security_options"));
        assert_eq!(nearest("mua_client_restrictions"), None);
    }
}
