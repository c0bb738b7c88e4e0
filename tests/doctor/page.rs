//! `docs/doctor.md` shows what comes out, and explains every probe there is and no other.
//!
//! With `SASLD_WRITE_DOCS=1` the page is rewritten with what came out.

use crate::site::Site;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md");

/// The site of the page: like many tutorials, in places where a package would have it.
fn tutorial(site: &mut Site) {
    let postconf = "postconf -c $ETC";
    let script = format!(
        "set -e
        {postconf} -MX submission/inet
        {postconf} smtpd_sasl_auth_enable=yes broken_sasl_auth_clients=yes smtpd_sasl_path=$QUEUE/private/auth
        {postconf} 'smtpd_recipient_restrictions=reject_unauth_destination, permit_sasl_authenticated'
        echo secret | sasld user add bob --scheme ARGON2ID --file $SITE/secrets --password-stdin
        mkdir -p $ROOT/etc/pam.d"
    );
    let broken = site.shell(&site.with_paths(&script));
    assert_eq!(broken.exit, 0, "{}", broken.out);
    site.age();
}

/// What came out, as it would with the paths of a package.
fn packaged(site: &Site, text: &str) -> String {
    site.without_paths(text)
        .replace(" --config $SITE/sasld.yaml", "")
        .replace(" --postfix-config $ETC", "")
        .replace(" -c $ETC", "")
        .replace("$ETC ", "")
        .replace("$ETC", "/etc/postfix")
        .replace("$QUEUE", "/var/spool/postfix")
        .replace("$SITE", "/etc/sasld")
        .replace(&format!("kill -HUP {}", site.sasld.pid()), "systemctl reload sasld")
}

/// Both as words, for texts are wrapped by the length of paths.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn compare(shown: &str, marker: &str) {
    let page = fs::read_to_string(PAGE).unwrap();
    let after = page.split_once(marker).unwrap_or_else(|| panic!("{marker}")).1;
    let block = after.split("```").nth(1).unwrap();
    if std::env::var_os("SASLD_WRITE_DOCS").is_some() {
        let new = page.replacen(&format!("```{block}```"), &format!("```\n{}\n```", shown.trim_end()), 1);
        fs::write(PAGE, new).unwrap();
        return;
    }
    assert_eq!(words(block), words(shown), "{PAGE} shows\n{block}\ninstead of\n{shown}");
}

#[test]
fn the_page_shows_what_comes_out() {
    let Some(mut site) = Site::working() else { return };
    tutorial(&mut site);
    let root = site.path().join("root");
    let report = site.sasld(&["doctor", "--root", root.to_str().unwrap()]);
    assert_eq!(report.exit, 2, "{}", report.out);
    // Whether systemd runs here is not the page's business.
    let shown = packaged(&site, &report.out);
    let shown: String = shown
        .split_inclusive('\n')
        .map(|line| match line.starts_with("-         units") {
            true => "ok        units            no unit of sasld has failed or is off\n",
            false => line,
        })
        .collect();
    compare(&shown, "<!-- tests/doctor/page.rs breaks a site like this, runs doctor and compares. -->");
    let Some(bare) = Site::bare("smtp inet n - y - - smtpd\n") else { return };
    let printed = bare.sasld(&["setup", "postfix"]);
    compare(&packaged(&bare, &printed.out), "<!-- tests/doctor/page.rs compares this, too. -->");
}

#[test]
fn every_probe_is_explained_and_no_other() {
    let Some(site) = Site::working() else { return };
    let report: Value = serde_json::from_str(&site.sasld(&["doctor", "--json"]).out).unwrap();
    let probes = report["probes"].as_array().unwrap().iter();
    let there: BTreeSet<String> = probes.map(|probe| probe["name"].as_str().unwrap().to_owned()).collect();
    let page = fs::read_to_string(PAGE).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let explained: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(explained, there);
}
