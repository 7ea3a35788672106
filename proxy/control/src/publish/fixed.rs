//! What a running gateway can't change of its configuration.

use postern_steering::Settings;

use crate::config::Config;

/// Keeps what a running process can't change, and names what it kept.
pub(super) fn keep_fixed(mut new: Config, old: &Config) -> (Config, Vec<&'static str>) {
    let mut kept = Vec::new();
    let mut keep = Keep(&mut kept);
    keep.the("listen.addresses", &mut new.listen, &old.listen);
    keep.the("listen.cores", &mut new.cores, &old.cores);
    keep.the("listen.driver", &mut new.driver, &old.driver);
    keep.the("listen.placement", &mut new.placement, &old.placement);
    keep.the("accounting.enabled", &mut new.accounting, &old.accounting);
    keep.the(
        "state.directory",
        &mut new.state_directory,
        &old.state_directory,
    );
    keep.the(
        "state.bpf_directory",
        &mut new.bpf_directory,
        &old.bpf_directory,
    );
    keep.the(
        "audit.directory",
        &mut new.audit.directory,
        &old.audit.directory,
    );
    keep.the("metrics.listen", &mut new.metrics, &old.metrics);
    match (&mut new.steering, &old.steering) {
        (Some(new), Some(old)) => keep.steering(new, old),
        (new, old) => keep.the("steering", new, old),
    }
    (new, kept)
}

/// Names what was kept.
struct Keep<'a>(&'a mut Vec<&'static str>);

impl Keep<'_> {
    fn the<T: PartialEq + Clone>(&mut self, key: &'static str, new: &mut T, old: &T) {
        if *new != *old {
            self.0.push(key);
            new.clone_from(old);
        }
    }

    /// The rest of it the conductor takes over when it is told to read the file again.
    fn steering(&mut self, new: &mut Settings, old: &Settings) {
        self.the("steering.node", &mut new.node, &old.node);
        let mut addresses = (new.address_v4, new.address_v6);
        self.the(
            "steering.addresses",
            &mut addresses,
            &(old.address_v4, old.address_v6),
        );
        (new.address_v4, new.address_v6) = addresses;
        self.the("steering.interface", &mut new.interface, &old.interface);
        self.the("steering.mode", &mut new.mode, &old.mode);
        self.the(
            "steering.tunnel_port",
            &mut new.tunnel_port,
            &old.tunnel_port,
        );
        // Listeners have told browsers what fits.
        self.the("steering.mtu", &mut new.mtu, &old.mtu);
        self.the(
            "steering.secret_file",
            &mut new.secret_file,
            &old.secret_file,
        );
        self.the("steering.store", &mut new.store, &old.store);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::steering_tests::{STEERING, folder};

    #[test]
    fn what_of_steering_needs_a_restart_is_named_and_kept() {
        let old = folder(STEERING).config();
        let check = |from: &str, to: &str, kept: &[&str]| {
            assert!(STEERING.contains(from), "{from}");
            let other = folder(&STEERING.replacen(from, to, 1));
            let mut new = other.config();
            // Each folder is its own.
            new.state_directory.clone_from(&old.state_directory);
            new.audit.directory.clone_from(&old.audit.directory);
            if let (Some(new), Some(old)) = (&mut new.steering, &old.steering) {
                new.secret_file.clone_from(&old.secret_file);
            }
            let wanted = new.clone();
            let (taken, named) = keep_fixed(new, &old);
            assert_eq!(named, kept, "{to}");
            let is_taken = taken.steering == wanted.steering;
            assert_eq!(is_taken, kept.is_empty(), "{to}");
        };
        check("node = 3", "node = 4", &["steering.node"]);
        check("10.0.0.1\"", "10.0.0.2\"", &["steering.addresses"]);
        check(
            "node = 3",
            "node = 3\nmode = \"generic\"",
            &["steering.mode"],
        );
        check("node = 3", "node = 3\nmtu = 9000", &["steering.mtu"]);
        check(
            "node = 3",
            "node = 3\ntunnel_port = 1",
            &["steering.tunnel_port"],
        );
        check(":2379", ":2380", &["steering.store"]);
        check(STEERING, "", &["steering"]);
        check("node = 3", "node = 3\nweight = 7", &[]);
        check("10.0.0.7/24", "10.0.0.0/8", &[]);
        check("203.0.113.10", "203.0.113.11", &[]);
    }
}
