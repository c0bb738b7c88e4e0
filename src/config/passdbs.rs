//! The key `passdbs`: who knows the passwords; and which mechanisms they can serve.
//!
//! CRAM-MD5 needs a stored secret, which PAM never tells. With PAM alone it is not offered, for it could only fail.

use super::item::{Fields, Item};
use super::mistake::{Mistake, quoted};
use super::{Mechanism, Passdb, ServicePolicy, default, values};
use crate::pam;
use crate::pam::request::MAX_ITEM_BYTES;
use crate::passdb::pam::Settings;
use std::collections::BTreeMap;

const KEYS: [&str; 3] = ["secrets_file", "pam", "continue_on_refusal"];
const PAM_KEYS: [&str; 8] =
    ["service", "socket", "workers", "min_uid", "group", "login_shell", "prompts", "allow_user_change"];

pub(super) fn passdbs(item: &Item<'_>, mistakes: &mut Vec<Mistake>) -> Option<Vec<Passdb>> {
    let expected = "a list of passdbs such as `- secrets_file: /etc/sasld/secrets`";
    let elements = item.elements(expected).map_err(|mistake| mistakes.push(mistake)).ok()?;
    let mut good: Vec<Passdb> = Vec::with_capacity(elements.len());
    for element in &elements {
        let Some(passdb) = passdb(element, mistakes) else {
            continue;
        };
        if good.iter().any(|earlier| is_same(earlier, &passdb)) {
            mistakes.push(element.mistake("this passdb is there twice"));
        }
        good.push(passdb);
    }
    if good.len() == elements.len() { Some(good) } else { None }
}

/// Two entries for one file, or for one `sasld-pam`.
fn is_same(one: &Passdb, other: &Passdb) -> bool {
    match (one, other) {
        (Passdb::SecretsFile { path: one, .. }, Passdb::SecretsFile { path: other, .. }) => one == other,
        (Passdb::Pam { settings: one, .. }, Passdb::Pam { settings: other, .. }) => {
            one.socket == other.socket
        }
        (Passdb::SecretsFile { .. }, Passdb::Pam { .. })
        | (Passdb::Pam { .. }, Passdb::SecretsFile { .. }) => false,
    }
}

fn passdb(element: &Item<'_>, mistakes: &mut Vec<Mistake>) -> Option<Passdb> {
    let expected = "`secrets_file: PATH` or `pam: {}`";
    let mistakes_before = mistakes.len();
    let fields = element.fields(expected, &KEYS, mistakes)?;
    let continue_on_refusal =
        fields.read("continue_on_refusal", default::CONTINUE_ON_REFUSAL, mistakes, values::boolean);
    match (fields.get("secrets_file"), fields.get("pam")) {
        (Some(path), None) => {
            let path = values::absolute_path(path).map_err(|mistake| mistakes.push(mistake)).ok();
            Some(Passdb::SecretsFile { path: path?, continue_on_refusal: continue_on_refusal? })
        }
        (None, Some(item)) => {
            let settings = pam(item, mistakes);
            Some(Passdb::Pam { settings: settings?, continue_on_refusal: continue_on_refusal? })
        }
        (Some(_), Some(_)) => {
            mistakes.push(
                element.mistake(format!("expected {expected}, found both; each is an entry of its own")),
            );
            None
        }
        (None, None) => {
            // A misspelt key has been reported already.
            if mistakes.len() == mistakes_before {
                mistakes.push(element.mistake(format!("expected {expected}, found no such key")));
            }
            None
        }
    }
}

fn pam(item: &Item<'_>, mistakes: &mut Vec<Mistake>) -> Option<Settings> {
    let fields = item.fields("settings of the PAM passdb, or {} for the defaults", &PAM_KEYS, mistakes)?;
    let worker = worker(&fields, mistakes);
    let socket = fields.read("socket", default::PAM_SOCKET.into(), mistakes, values::socket_path);
    let allow_user_change =
        fields.read("allow_user_change", default::PAM_ALLOW_USER_CHANGE, mistakes, values::boolean);
    Some(Settings { socket: socket?, allow_user_change: allow_user_change?, worker: worker? })
}

/// What `sasld-pam` has to be started with.
fn worker(fields: &Fields<'_>, mistakes: &mut Vec<Mistake>) -> Option<pam::Settings> {
    let default = pam::Settings::default();
    let service = fields.read("service", default.service, mistakes, |item| {
        const EXPECTED: &str = "the name of a file in /etc/pam.d: 1 to 32 characters of a-z, 0-9, _ and -";
        let text = item.text(EXPECTED)?;
        if pam::Settings::is_service(text) { Ok(text.to_owned()) } else { Err(item.expected(EXPECTED)) }
    });
    let workers =
        fields.read("workers", u32::from(default.workers), mistakes, |item| values::number(item, &(0..=256)));
    let min_uid =
        fields.read("min_uid", default.min_uid, mistakes, |item| values::number(item, &(0..=u32::MAX)));
    let group = fields.read("group", default.group, mistakes, |item| {
        let expected = format!("the name of a group, 1 to {MAX_ITEM_BYTES} bytes");
        let text = item.text(&expected)?;
        let good = (1..=MAX_ITEM_BYTES).contains(&text.len()) && !text.contains(char::is_whitespace);
        if good {
            Ok(Some(text.to_owned()))
        } else {
            Err(item.mistake(format!("expected {expected}, found {}", quoted(text))))
        }
    });
    let login_shell = fields.read("login_shell", default.login_shell, mistakes, values::boolean);
    let prompts =
        fields.read("prompts", u32::from(default.prompts), mistakes, |item| values::number(item, &(1..=8)));
    Some(pam::Settings {
        service: service?,
        workers: u16::try_from(workers?).ok()?,
        min_uid: min_uid?,
        group: group?,
        login_shell: login_shell?,
        prompts: u8::try_from(prompts?).ok()?,
    })
}

/// Takes away what none of these passdbs could ever answer. `written` is the key `mechanisms`.
pub(super) fn keep_what_can_be_served(
    mechanisms: &mut Vec<Mechanism>,
    services: &mut BTreeMap<String, ServicePolicy>,
    passdbs: &[Passdb],
    written: &Item<'_>,
    mistakes: &mut Vec<Mistake>,
) {
    if passdbs.iter().any(|passdb| matches!(passdb, Passdb::SecretsFile { .. })) {
        return;
    }
    mechanisms.retain(|mechanism| mechanism.is_plaintext());
    if mechanisms.is_empty() {
        mistakes.push(written.mistake("PAM can only answer PLAIN and LOGIN, and there is no other passdb"));
    }
    for (name, service) in services {
        service.mechanisms.retain(|mechanism| mechanism.is_plaintext());
        if service.mechanisms.is_empty() && !mechanisms.is_empty() {
            mistakes.push(written.mistake(format!(
                "the service {} is left without any: PAM can only answer PLAIN and LOGIN",
                quoted(name)
            )));
        }
    }
}
