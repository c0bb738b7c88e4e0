//! A child under valgrind: the unsafe code, the binding and libpam, with conversations of every kind.

use crate::harness::{Folder, PamServer, module_stack};
use crate::support::skip::not_tested;
use sasld::pam::request::Outcome;

#[test]
fn valgrind_has_nothing_to_report() {
    let found = std::process::Command::new("valgrind").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        not_tested("valgrind is missing; packaging/dev/need test installs it");
        return;
    }
    let folder = Folder::new();
    folder.write("sasld", &module_stack());
    let report = folder.path().join("report");
    let mut child = PamServer::child_under(
        &[
            "valgrind",
            "--quiet",
            "--error-exitcode=99",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
            &format!("--log-file={}", report.display()),
        ],
        folder,
        &["--min-uid=0"],
    );
    for user in [
        "alice",
        "twice",
        "many",
        "nothing",
        "negative",
        "binary",
        "radio",
        "odd",
        "null",
        "name",
        "talker",
        "rename",
        "rename-to-noise",
        "rename-to-nobody",
        "yes",
        "code9",
        "account13",
    ] {
        for password in ["right", "wrong"] {
            let outcome = child.ask(user, password);
            assert!(matches!(outcome, Outcome::Checked(_)), "{user}: {outcome:?}");
        }
    }
    let status = child.end();
    let report = std::fs::read_to_string(child.folder().path().join("report")).expect("a report");
    assert!(status.success() && report.is_empty(), "{status}\n{report}");
}
