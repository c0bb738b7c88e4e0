//! What takes a machine of one's own: Postfix's real instances, which only /etc/postfix can have, and sasld's account.
//!
//! A mount namespace whose /etc is a copy, with the site's configuration in the place of Postfix's. Nothing outside of it
//! changes.

use crate::site::{Outcome, Site, outcome};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// A namespace, kept by a shell that waits for its end.
struct World(Child);

impl World {
    fn around(site: &Site) -> Self {
        let etc = site.path().join("world");
        let script = format!(
            "set -e
            mount --make-rprivate /
            cp -a /etc {etc}
            mount --bind {etc} /etc
            mount --bind {postfix} /etc/postfix
            echo made
            read -r end",
            etc = etc.display(),
            postfix = site.etc().display()
        );
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "made\n");
        Self(child)
    }

    /// Types a command in there.
    fn shell(&self, site: &Site, command: &str) -> Outcome {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.0.id());
        let mut shell = site.with_environment("nsenter");
        shell.args([&namespace, "sh", "-c", command]).stdin(Stdio::null());
        outcome(&mut shell)
    }

    fn doctor(&self, site: &Site) -> Value {
        let said = self.shell(site, "sasld doctor --json --config $SITE/sasld.yaml --root $ROOT");
        serde_json::from_str(said.out.lines().next().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.0.stdin.take().map(|mut stdin| stdin.write_all(b"\n"));
        let _ = self.0.wait();
    }
}

/// Place and fix of what a probe found.
fn found(report: &Value, probe: &str) -> Vec<(String, String)> {
    let probes = report["probes"].as_array().unwrap();
    let probe = probes.iter().find(|own| own["name"] == probe).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    probe["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| (text(&own["place"]), text(&own["fix"][0])))
        .collect()
}

#[test]
fn every_instance_that_postmulti_lists_is_looked_at_and_mended_by_its_own_commands() {
    let Some(mut site) = Site::working() else { return };
    // A second one beside it, whose queue is its own, and which asks at the first one's socket.
    let script = "set -e
        mkdir -p $SITE/out $SITE/queue-out $SITE/data-out
        cp $ETC/master.cf $SITE/out
        sed 's!queue_directory = .*!queue_directory = '$SITE'/queue-out!
             s!data_directory = .*!data_directory = '$SITE'/data-out!' $ETC/main.cf >$SITE/out/main.cf
        postconf -c $SITE/out multi_instance_name=postfix-out multi_instance_enable=yes smtpd_sasl_path=$QUEUE/private/auth
        postconf -c $SITE/out -F 'submission/inet/chroot=n'
        postconf -c $ETC multi_instance_enable=yes multi_instance_directories=$SITE/out smtpd_sasl_path=private/none
        touch -d '1 minute ago' $ETC/* $SITE/out/*";
    let laid_out = site.shell(script);
    assert_eq!(laid_out.exit, 0, "{laid_out:?}");
    let world = World::around(&site);
    let listed = world.shell(&site, "postmulti -l");
    assert!(listed.out.contains("postfix-out"), "{listed:?}");
    let report = world.doctor(&site);
    let out = site.path().join("out").display().to_string();
    assert_eq!(report["postfix"], serde_json::json!(["/etc/postfix", out]));
    let first =
        ("/etc/postfix submission/inet".to_owned(), "postconf smtpd_sasl_path=private/auth".to_owned());
    assert_eq!(found(&report, "socket"), [first]);

    let mended =
        world.shell(&site, &format!("{} && touch -d '1 minute ago' $ETC/*", found(&report, "socket")[0].1));
    assert_eq!(mended.exit, 0, "{mended:?}");
    let broken = site
        .shell("postconf -c $SITE/out smtpd_sasl_path=private/none && touch -d '1 minute ago' $SITE/out/*");
    assert_eq!(broken.exit, 0, "{broken:?}");
    let report = world.doctor(&site);
    let fix = format!("postconf -c {out} smtpd_sasl_path={}/queue/private/auth", site.path().display());
    assert_eq!(found(&report, "socket"), [(format!("{out} submission/inet"), fix.clone())]);
    let mended = world.shell(&site, &format!("{fix} && touch -d '1 minute ago' $SITE/out/*"));
    assert_eq!(mended.exit, 0, "{mended:?}");
    assert_eq!(found(&world.doctor(&site), "socket"), []);
}

#[test]
fn what_the_account_of_sasld_cannot_read_is_opened_to_it_and_to_nobody_else() {
    let Some(site) = Site::working() else { return };
    let world = World::around(&site);
    let made = world.shell(
        &site,
        "getent passwd _sasld || useradd --system --user-group --no-create-home _sasld; chmod 0600 $SITE/sasld.yaml",
    );
    assert_eq!(made.exit, 0, "{made:?}");
    for (probe, file) in [("configuration", "sasld.yaml"), ("secrets-file", "secrets")] {
        let path = site.path().join(file).display().to_string();
        let report = world.doctor(&site);
        let fix = format!("chgrp _sasld {path} && chmod 0640 {path}");
        assert_eq!(found(&report, probe), [(path, fix.clone())], "{report}");
        let mended = world.shell(&site, &fix);
        assert_eq!(mended.exit, 0, "{mended:?}");
        assert_eq!(found(&world.doctor(&site), probe), []);
    }
}
