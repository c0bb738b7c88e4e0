//! The control socket and that of `metrics:`: opened at the start, while there is root, and again at a reload if their
//! files have gone. One that cannot be opened is said so in the log, and logins are served without it.

use super::root;
use crate::config::{Config, Metrics};
use crate::control::{Door, Reporter, open_control, open_metrics};
use crate::server::Endpoint;
use crate::server::listener::loopback;
use nix::unistd::{Gid, Uid, User};
use std::path::Path;
use std::sync::Arc;
use tracing::warn;

/// What is open.
#[derive(Default)]
pub struct Doors {
    control: Option<Door>,
    metrics: Option<Door>,
}

impl Doors {
    /// Opens what the configuration wants and is not there.
    pub fn open(&mut self, config: &Config, reporter: &Arc<Reporter>) {
        // Who cannot be found is not waited for: then they belong to whoever we are now.
        let becomes = root::becomes().ok().flatten();
        if let Some(path) = config.control.as_deref().filter(|_| is_missing(&mut self.control)) {
            self.control = control(path, becomes.as_ref(), reporter);
        }
        if let Some(metrics) = config.metrics.as_ref().filter(|_| is_missing(&mut self.metrics)) {
            self.metrics = serve_metrics(metrics, becomes.as_ref(), reporter);
        }
    }
}

/// Closes a door that nobody finds any more.
fn is_missing(door: &mut Option<Door>) -> bool {
    if door.as_ref().is_some_and(|door| !door.is_in_place()) {
        *door = None;
    }
    door.is_none()
}

fn control(path: &Path, becomes: Option<&User>, reporter: &Arc<Reporter>) -> Option<Door> {
    open_control(path, becomes, Arc::clone(reporter))
        .map_err(|reason| warn!(event = "control_not_available", %reason))
        .ok()
}

fn serve_metrics(metrics: &Metrics, becomes: Option<&User>, reporter: &Arc<Reporter>) -> Option<Door> {
    let endpoint = match metrics {
        Metrics::Unix { path, group, mode } => Endpoint::Unix {
            path: path.clone(),
            owner: Some(becomes.map_or_else(Uid::effective, |user| user.uid)),
            group: group.as_ref().map(|group| Gid::from_raw(group.id)).or(becomes.map(|user| user.gid)),
            mode: *mode,
            peers: Vec::new(),
        },
        Metrics::Tcp(tcp) => {
            Endpoint::Tcp { address: tcp.address, allow: tcp.allow.clone().unwrap_or_else(loopback) }
        }
    };
    open_metrics(&endpoint, Arc::clone(reporter))
        .map_err(|reason| warn!(event = "metrics_not_available", %reason))
        .ok()
}
