//! sasld's systemd units, as `systemctl show` has them. Without a running systemd there are none.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Those that the package installs.
const NAMES: [&str; 4] = ["sasld.service", "sasld.socket", "sasld-pam.service", "sasld-pam.socket"];

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
}

impl Units {
    /// Asks systemd, if it runs this machine.
    pub fn look(root: &Path) -> Option<Self> {
        if !root.join("run/systemd/system").is_dir() {
            return None;
        }
        let output = Command::new("systemctl")
            .args(["show", "--property=Id,LoadState,ActiveState,UnitFileState"])
            .args(NAMES)
            .output()
            .ok()?;
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
                units.insert(
                    value("Id"),
                    Unit { active: value("ActiveState"), enabled: value("UnitFileState") },
                );
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
}
