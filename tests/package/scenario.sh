# What the scenarios of main.rs are made of. The first thing that fails ends a scenario, and says which line it was.
set -Eeuo pipefail
trap 'echo "FAILED: $BASH_COMMAND (status $?)" >&2' ERR
cd /

new=$(ls /debs/sasld_*.deb | grep -v old)
old=$(ls /debs/old_*.deb)

install() { apt-get -y -qq install "$@" >/tmp/apt.log 2>&1 || { cat /tmp/apt.log >&2; false; }; }
remove() { apt-get -y -qq remove sasld >/tmp/apt.log 2>&1 || { cat /tmp/apt.log >&2; false; }; }
purge() { apt-get -y -qq purge sasld >/tmp/apt.log 2>&1 || { cat /tmp/apt.log >&2; false; }; }
# With somebody at a terminal, who is asked and gives this answer.
purge_and_answer() {
  echo "$1" | DEBIAN_FRONTEND=readline script --quiet --return --command 'dpkg --purge sasld' /tmp/asked >/dev/null
  is "$(grep -c 'Delete the passwords of all mail users?' /tmp/asked)" 1
}
is() { [ "$1" = "$2" ] || { printf 'expected: %s\nfound:    %s\n' "$2" "$1" >&2; false; }; }

# Users and groups without systemd.
without_systemd() { install systemd-standalone-sysusers; }
with_systemd() { install systemd; }
with_postfix() {
  echo 'postfix postfix/main_mailer_type select Internet Site' | debconf-set-selections
  install postfix
}

# Every file with type, mode, owner and, in /etc, contents. Left out: what apt, dpkg, debconf and ldconfig keep for
# themselves, and the scenario's own.
files() {
  local skip='^/(proc|sys|dev|run|tmp|debs|out|var/lib/(dpkg|apt|ucf)|var/cache/(apt|debconf|ldconfig)|var/log)(/|$)'
  find / -xdev -regextype posix-extended -regex "$skip" -prune -o -printf '%y %m %U:%G %p %l\n' | sort -k 4
  find /etc -type f -exec sha256sum {} + | sort -k 2
}
postfix_is() { find /etc/postfix /var/spool/postfix/etc -type f -exec sha256sum {} + 2>/dev/null | sort; }
secrets() { stat -c '%a %U:%G' /etc/sasld/secrets; }
# sasld without systemd, as root starts it; its log is /tmp/sasld.log.
serve() {
  command install -d -o _sasld -g _sasld /run/sasld
  sasld serve --state-directory /var/lib/sasld 2>/tmp/sasld.log &
  timeout 30 sh -c 'until grep -q event=ready /tmp/sasld.log; do sleep 0.1; done' || { cat /tmp/sasld.log >&2; false; }
}
stop() { kill %%; wait %% || true; }
