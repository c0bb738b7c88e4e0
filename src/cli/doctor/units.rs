//! sasld's systemd units, as `systemctl show` has them. Without a running systemd there are none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Those that the package installs, and the sockets of other Postfix instances that are in use.
const NAMES: [&str; 5] =
    ["sasld.service", "sasld.socket", "sasld-pam.service", "sasld-pam.socket", "sasld-instance@*.socket"];

/// What of them is looked at.
const PROPERTIES: &str =
    "--property=Id,LoadState,ActiveState,UnitFileState,Listen,SocketUser,SocketGroup,SocketMode";

/// The units that exist, by name.
#[derive(Debug, Default)]
pub struct Units(BTreeMap<String, Unit>);

/// One of them.
#[derive(Debug, Default)]
pub struct Unit {
    /// `active`, `inactive`, `failed`, …
    pub active: String,
    /// `enabled`, `disabled`, `masked`, …
    pub enabled: String,
    /// The Unix sockets that it makes.
    pub sockets: Vec<PathBuf>,
    /// Whose they are: `SocketUser=` and `SocketGroup=`, empty for root.
    pub owner: (String, String),
    /// `SocketMode=`.
    pub mode: u32,
}

impl Units {
    /// Asks systemd, if it runs this machine.
    pub fn look(root: &Path) -> Option<Self> {
        if !root.join("run/systemd/system").is_dir() {
            return None;
        }
        let output = Command::new("systemctl").args(["show", PROPERTIES]).args(NAMES).output().ok()?;
        Some(Self::read(&String::from_utf8_lossy(&output.stdout)))
    }

    fn read(shown: &str) -> Self {
        let mut units = BTreeMap::new();
        for block in shown.split("\n\n") {
            let value = |key: &str| {
                let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
                line.unwrap_or_default().to_owned()
            };
            if matches!(value("LoadState").as_str(), "loaded" | "masked") {
                let sockets = block.lines().filter_map(|line| {
                    let path = line.strip_prefix("Listen=")?.strip_suffix(" (Stream)")?;
                    path.starts_with('/').then(|| path.into())
                });
                let unit = Unit {
                    active: value("ActiveState"),
                    enabled: value("UnitFileState"),
                    sockets: sockets.collect(),
                    owner: (value("SocketUser"), value("SocketGroup")),
                    mode: u32::from_str_radix(&value("SocketMode"), 8).unwrap_or_default(),
                };
                units.insert(value("Id"), unit);
            }
        }
        Self(units)
    }

    /// Whether there is such a unit.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Unit)> {
        self.0.iter().map(|(name, unit)| (name.as_str(), unit))
    }
}

#[cfg(test)]
mod tests {
    use super::Units;

    #[test]
    fn units_that_are_not_installed_are_not_there() {
        let shown = "Id=sasld.service\nLoadState=loaded\nActiveState=failed\nUnitFileState=enabled\n\n\
                     Id=sasld.socket\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n";
        let units = Units::read(shown);
        assert!(units.has("sasld.service") && !units.has("sasld.socket"));
        assert_eq!(units.iter().next().map(|(_, unit)| unit.active.as_str()), Some("failed"));
    }

    #[test]
    fn a_unit_tells_which_sockets_it_makes_and_whose_they_are() {
        let shown = "Listen=/var/spool/postfix/private/auth (Stream)\nListen=127.0.0.1:12345 (Stream)\n\
                     SocketUser=postfix\nSocketGroup=\nSocketMode=0660\nId=sasld.socket\nLoadState=loaded\n";
        let units = Units::read(shown);
        let (_, unit) = units.iter().next().unwrap();
        assert_eq!(unit.sockets, [std::path::Path::new("/var/spool/postfix/private/auth")]);
        assert_eq!(unit.owner, ("postfix".to_owned(), String::new()));
        assert_eq!(unit.mode, 0o660);
    }
}
