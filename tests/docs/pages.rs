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

/// A page with commands that do not run here.
pub struct NotRun {
    pub file: &'static str,
    pub why: &'static str,
    /// Each of its commands, the script that runs it, and as what; none if nothing does.
    pub elsewhere: &'static [(&'static str, &'static str, &'static str)],
}

const BOOT: &str = "tests/boot/inside";

pub const NOT_RUN: &[NotRun] = &[
    NotRun {
        file: "docs/debian.md",
        why: "the package needs a Debian of its own",
        elsewhere: &[
            ("make deb", "tests/package/world.rs", "packaging/dev/deb"),
            (
                "apt install ./target/deb/sasld_0.1.0_amd64.deb",
                "tests/package/scenario.sh",
                "apt-get -y -qq install",
            ),
            (
                "cp /usr/share/doc/sasld/examples/jail.conf /etc/fail2ban/jail.d/sasld.conf",
                BOOT,
                "cp /usr/share/doc/sasld/examples/jail.conf /etc/fail2ban/jail.d/sasld.conf",
            ),
            ("systemctl reload fail2ban", BOOT, "fail2ban-client --test"),
        ],
    },
    NotRun {
        file: "docs/hardening.md",
        why: "units need systemd, and `systemctl edit` a person",
        elsewhere: &[
            (
                "systemctl start sasld.socket sasld.service",
                BOOT,
                "systemctl start sasld.socket sasld.service",
            ),
            (
                "systemctl enable --now sasld.socket sasld.service",
                BOOT,
                "systemctl enable --now sasld.socket sasld.service",
            ),
            (
                "systemctl enable sasld-instance@postfix-out.socket",
                BOOT,
                "systemctl enable --quiet sasld-instance@postfix-out.socket",
            ),
            (
                "systemctl restart sasld.service sasld-instance@postfix-out.socket",
                BOOT,
                "systemctl restart sasld.service sasld-instance@postfix-out.socket",
            ),
            ("systemctl edit sasld.socket", BOOT, ">/run/systemd/system/sasld.socket.d/elsewhere.conf"),
            ("systemctl restart sasld.socket", BOOT, "systemctl restart sasld.socket"),
            ("systemctl edit sasld.service", BOOT, ">/run/systemd/system/sasld.service.d/network.conf"),
        ],
    },
    NotRun { file: "docs/performance.md", why: "benchmarks, for minutes on a quiet machine", elsewhere: &[] },
];

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
        mkdir -p /run/sasld; systemctl start sasld
        install -D -m 600 /dev/null /etc/dovecot/users
        echo 'alice:{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU:1000:1000::/home/alice' >>/etc/dovecot/users
        echo 'dave:{SSHA}8bX4JQDfZqtTfvnQ4ssDmWb17/FTQUxU' >>/etc/dovecot/users
        echo 'erin:{PLAIN}secret::::::allow_nets=192.0.2.0/24,local' >>/etc/dovecot/users
        echo 'frank:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a' >>/etc/dovecot/users",
        "sasld user list | shows bob";
    other_mail_servers: "docs/clients.md", "alice; systemctl start sasld; postfix start", "log_in | shows '235 2.7.0'";

    postfix_in_five_minutes: "docs/postfix.md", "
        install -D -m 644 packaging/sasld.yaml /etc/sasld/sasld.yaml; postfix start",
        "test -z \"$(postconf -M submission submissions)\"; log_in | shows 'Host did not advertise authentication'";
    a_scanner: "docs/cram-md5-scanner.md", "
        alice; systemctl start sasld; postfix_asks_sasld; postfix start; ip address add 192.0.2.20/32 dev lo",
        "log_in CRAM-MD5 | shows 'Auth not attempted'
        log_in | shows '235 2.7.0'
        smtp --server 127.0.0.1:2525 --local-interface 192.0.2.20 --from alice@example.com --to root@localhost \
          --auth CRAM-MD5 --auth-user scanner --auth-password wonderland | shows 'not owned by user scanner'";
    system_users: "docs/system-users.md", "
        alice; install -m 644 packaging/pam.d/sasld /etc/pam.d/sasld
        useradd --create-home --base-dir $scratch erin; chpasswd <<<erin:wonderland
        useradd --create-home --base-dir $scratch frank; chpasswd <<<frank:wonderland",
        "! sasld test /var/spool/postfix/private/auth --user frank --password-stdin <<<wonderland";
    from_dovecot: "docs/from-dovecot.md", "
        install -m 644 packaging/sasld.yaml -D /etc/sasld/sasld.yaml
        rm -rf /etc/dovecot; mkdir -p /etc/dovecot/conf.d; postfix_asks_sasld; postfix start
        echo 'alice:{PLAIN}wonderland' >/etc/dovecot/users; chmod 644 /etc/dovecot/users
        cat >/etc/dovecot/dovecot.conf <<'CONF'
protocols =
ssl = no
log_path = /var/log/dovecot.log
passdb {
  driver = passwd-file
  args = /etc/dovecot/users
}
!include conf.d/*.conf
CONF
        cat >/etc/dovecot/conf.d/10-master.conf <<'CONF'
service auth {
  unix_listener /var/spool/postfix/private/auth {
    user = postfix
    mode = 0660
  }
}
CONF
        dovecot; log_in | shows '235 2.7.0'", "
        test $(grep -c 'event=auth result=ok user=alice mech=PLAIN' $scratch/sasld.log) = 2
        ! pgrep -x sasld; log_in | shows '235 2.7.0'";
    from_saslauthd: "docs/from-saslauthd.md", "
        install -m 644 packaging/sasld.yaml -D /etc/sasld/sasld.yaml
        saslpasswd2 -p -c -u mail.example.com alice <<<wonderland
        mkdir -p /etc/postfix/sasl; printf 'pwcheck_method: auxprop\nauxprop_plugin: sasldb\n' >/etc/postfix/sasl/smtpd.conf
        postconf -e smtpd_sasl_auth_enable=yes; age; postfix start",
        "log_in CRAM-MD5 | shows '235 2.7.0'";
    doctor_setup_and_probe: "docs/doctor.md", "
        alice; echo 'passdbs: [{secrets_file: /etc/sasld/secrets}]' >/etc/sasld/sasld.yaml
        systemctl start sasld; postfix start; sasld setup postfix --apply
        certificate=/etc/ssl/certs/ssl-cert-snakeoil.pem
        ln -s $certificate /etc/ssl/certs/$(openssl x509 -noout -hash -in $certificate).0",
        "
        postconf -M submissions/inet | shows smtpd
        smtp --server 127.0.0.1:465 --tls-on-connect --auth PLAIN --auth-user alice --auth-password wonderland \
          --quit-after AUTH | shows '235 2.7.0'
        log_in | shows 'Host did not advertise authentication'";
    status_and_why: "docs/control.md", "
        alice; systemctl start sasld; postfix_asks_sasld; postfix start; log_in | shows '235 2.7.0'",
        "sasld why alice | shows 'ok'";
    exim_and_chasquid: "docs/exim-chasquid.md",
        "alice; . $repository/tests/docs/mail-servers; mail_servers", "
        . $repository/tests/docs/mail-servers
        chasquid_works
        rm $(ls -d /etc/sasld/conf.d/* | tail -1)
        systemctl start sasld
        exim_works";
    what_each_file_is_worth: "docs/files.md", "alice; systemctl start sasld; postfix_asks_sasld; postfix start",
        "sasld user list | grep alice | shows ARGON2ID";

    no_sasl_authentication_mechanisms: "docs/errors/no-sasl-authentication-mechanisms.md", "
        alice; postfix_asks_sasld; postconf -e smtpd_sasl_security_options=noanonymous,noplaintext,noactive; age
        postfix start
        log_in >/dev/null
        logged 'fatal: no SASL authentication mechanisms'
        logged 'bad command startup -- throttling'",
        "log_in | shows '235 2.7.0'";
    connect_no_such_file: "docs/errors/connect-no-such-file-or-directory.md", "
        alice; postfix_asks_sasld; postconf -e smtpd_sasl_path=/run/sasld/auth; age; postfix start
        log_in >/dev/null
        logged \"SASL: Connect to Dovecot auth socket '/run/sasld/auth' failed: No such file or directory\"",
        "log_in | shows '235 2.7.0'";
    connect_permission_denied: "docs/errors/connect-permission-denied.md", "
        alice; postfix_asks_sasld; postfix start
        echo 'listeners: [{unix: /var/spool/postfix/private/auth, owner: root, group: root, mode: 0600}]' \
          >/etc/sasld/sasld.yaml
        systemctl start sasld
        log_in >/dev/null
        logged \"SASL: Connect to Dovecot auth socket 'private/auth' failed: Permission denied\"",
        "log_in | shows '235 2.7.0'
        ls -l /var/spool/postfix/private/auth | shows 'srw-rw---- 1 postfix postfix'";
    connect_connection_refused: "docs/errors/connect-connection-refused.md", "
        alice; postfix_asks_sasld; postfix start
        systemctl start sasld; pkill -KILL -x sasld; while pgrep -x sasld >/dev/null; do :; done
        log_in >/dev/null
        logged \"SASL: Connect to Dovecot auth socket 'private/auth' failed: Connection refused\"",
        "log_in | shows '235 2.7.0'";
    connection_lost: "docs/errors/connection-lost-to-authentication-server.md", "
        alice; postfix_asks_sasld; chmod 644 /etc/sasld/secrets; systemctl start sasld; postfix start
        log_in LOGIN | shows '454 4.7.0'
        logged 'SASL LOGIN authentication failed: Connection lost to authentication server, sasl_username=(unavailable)'
        grep -q 'result=outage why=passdb_unavailable user=alice mech=LOGIN' $scratch/sasld.log",
        "logged event=secrets_loaded $scratch/sasld.log
        log_in LOGIN | shows '235 2.7.0'";
    invalid_authentication_mechanism: "docs/errors/invalid-authentication-mechanism.md", "
        alice; echo 'mechanisms: [PLAIN]' >/etc/sasld/sasld.yaml; postfix_asks_sasld; systemctl start sasld; postfix start
        raw 'AUTH LOGIN' | shows '535 5.7.8 Error: authentication failed: Invalid authentication mechanism'
        logged 'SASL LOGIN authentication failed: Invalid authentication mechanism, sasl_username=(unavailable)'",
        "log_in LOGIN | shows '235 2.7.0'";
    unsupported_implementation: "docs/errors/unsupported-sasl-server-implementation.md", "
        alice; systemctl start sasld; postfix_asks_sasld; postconf -e smtpd_sasl_type=Dovecot; age; postfix start
        (exec 5<>/dev/tcp/127.0.0.1/25)
        logged 'warning: unsupported SASL server implementation: Dovecot'
        logged 'fatal: SASL per-process initialization failed'
        postconf -a | tr '\n' ' ' | shows 'cyrus dovecot '",
        "log_in | shows '235 2.7.0'";
    error_454: "docs/errors/454-temporary-authentication-failure.md", "
        alice; postfix_asks_sasld; systemctl start sasld; postfix start; log_in | shows '235 2.7.0'
        systemctl stop sasld
        log_in | shows '454 4.7.0 Temporary authentication failure: (reason unavailable)'",
        "log_in | shows '235 2.7.0'";
    error_535: "docs/errors/535-authentication-failed.md", "
        alice; sed -i 's/^alice:.*/alice:{PLAIN}forgotten/' /etc/sasld/secrets
        postfix_asks_sasld; systemctl start sasld; postfix start
        log_in | shows '535 5.7.8 Error: authentication failed: Invalid user name or password'
        logged 'SASL PLAIN authentication failed: Invalid user name or password, sasl_username=alice'
        grep -q 'result=refused why=wrong_password user=alice mech=PLAIN' $scratch/sasld.log",
        "log_in | shows '235 2.7.0'";
    error_503: "docs/errors/503-authentication-not-enabled.md", "
        alice; systemctl start sasld; postfix start
        raw 'AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=' | shows '503 5.5.1 Error: authentication not enabled'
        logged 'auth=0/1'",
        "log_in | shows '235 2.7.0'";
    error_530: "docs/errors/530-must-issue-a-starttls-command-first.md", "
        alice; systemctl start sasld; postfix_asks_sasld; postconf -e smtpd_tls_security_level=encrypt; age; postfix start
        smtp --from alice@example.com --to bob@example.com | shows '530 5.7.0 Must issue a STARTTLS command first'",
        "smtp --from alice@example.com --to root@example.com | shows '250 2.0.0 Ok'";
    relay_access_denied: "docs/errors/relay-access-denied.md", "
        alice; systemctl start sasld; postfix_asks_sasld
        postconf -e mynetworks=192.0.2.0/24 smtpd_relay_restrictions=defer_unauth_destination default_transport=discard:
        age; postfix start
        log_in PLAIN --quit-after RCPT --from alice@example.com --to bob@example.net | \
          shows '454 4.7.1 <bob@example.net>: Relay access denied'
        postconf -e smtpd_relay_restrictions=reject_unauth_destination; age; postfix reload
        smtp --from alice@example.com --to bob@example.net | shows '554 5.7.1 <bob@example.net>: Relay access denied'",
        "smtp --from alice@example.com --to bob@example.net | shows 'Relay access denied'";
    error_553: "docs/errors/553-sender-address-rejected.md", "
        alice; systemctl start sasld; postfix_asks_sasld; postfix start
        printf 'alice@example.com alice\ncarol@example.com carol\n' >/etc/postfix/old
        postconf -e smtpd_sender_login_maps=texthash:/etc/postfix/old mydestination=example.com local_recipient_maps=
        postconf -e smtpd_sender_restrictions=reject_sender_login_mismatch; age; postfix reload
        smtp --from carol@example.com --to bob@example.com --auth PLAIN --auth-user alice --auth-password wonderland | \
          shows '553 5.7.1 <carol@example.com>: Sender address rejected: not owned by user alice'
        smtp --from carol@example.com --to bob@example.com | shows 'Sender address rejected: not logged in'",
        "true";
    no_mechanism_available: "docs/errors/no-mechanism-available.md", "
        alice; systemctl start sasld; postfix_asks_sasld
        postconf -e smtp_sasl_auth_enable=yes smtp_sasl_password_maps=inline:{127.0.0.1=alice:wonderland} \
          smtpd_sasl_mechanism_filter=plain relayhost=[127.0.0.1]:2500
        postconf -M '2500/inet=2500 inet n - n - - smtpd'
        age; postfix start
        smtp --from alice@example.com --to bob@example.net | shows 'queued as'
        logged 'warning: SASL authentication failure: No worthy mechs found'
        logged 'SASL authentication failed; cannot authenticate to server 127.0.0.1[127.0.0.1]: no mechanism available'",
        "postqueue -f
        logged 'sasl_username=alice'";
}
