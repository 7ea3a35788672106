//! What the conductor is told at its start.

use std::path::PathBuf;

/// Everything that the role needs to know; at least one of its three tasks is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub steering: Option<postern_steering::Settings>,
    /// Connections are accounted, and written to the audit folder.
    pub accounting: bool,
    /// New connections are placed on cores by load.
    pub placement: bool,
    /// A folder on a bpffs; programs and maps are pinned there.
    pub pins: PathBuf,
    pub state_directory: PathBuf,
    pub run_directory: PathBuf,
    pub audit_directory: PathBuf,
    /// Control's socket, which is asked how busy the engine is.
    pub admin_socket: PathBuf,
}

/// Name of the conductor's socket in the run folder.
pub const SOCKET: &str = "steer.sock";

impl Settings {
    /// The conductor's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_directory.join(SOCKET)
    }
}

impl Settings {
    /// These settings with what `new` says and can be changed while the conductor runs; and what of
    /// `new` needs a restart.
    #[must_use]
    pub fn renewed(&self, new: Self) -> (Self, Vec<&'static str>) {
        let mut taken = self.clone();
        let mut waiting = Vec::new();
        let mut note = |is_same: bool, what: &'static str| {
            if !is_same {
                waiting.push(what);
            }
        };
        note(self.accounting == new.accounting, "accounting.enabled");
        note(self.placement == new.placement, "listen.placement");
        note(self.pins == new.pins, "the folder of the pins");
        note(
            (&self.state_directory, &self.run_directory)
                == (&new.state_directory, &new.run_directory),
            "state.directory",
        );
        note(
            self.audit_directory == new.audit_directory,
            "audit.directory",
        );
        match (&mut taken.steering, new.steering) {
            (Some(old), Some(new)) => {
                note(old.node == new.node, "steering.node");
                let of = |settings: &postern_steering::Settings| {
                    (settings.address_v4, settings.address_v6)
                };
                note(of(old) == of(&new), "steering's own addresses");
                note(old.interface == new.interface, "steering.interface");
                note(old.mode == new.mode, "steering.mode");
                note(old.tunnel_port == new.tunnel_port, "steering.tunnel_port");
                note(old.secret_file == new.secret_file, "steering.secret_file");
                note(old.store == new.store, "steering.store");
                old.weight = new.weight;
                old.vips = new.vips;
                old.mtu = new.mtu;
                old.peers = new.peers;
                old.sources = new.sources;
                old.syns_per_second = new.syns_per_second;
                old.syns_burst = new.syns_burst;
                old.policy = new.policy;
            }
            (None, None) => {}
            _ => note(false, "steering"),
        }
        (taken, waiting)
    }
}

#[cfg(test)]
mod tests {
    use postern_steering::{ModeWish, NodeId, Policy, StoreSettings, Weight};

    use super::*;

    fn settings() -> Settings {
        let steering = postern_steering::Settings {
            node: NodeId::new(1).unwrap(),
            weight: Weight::new(100).unwrap(),
            address_v4: Some([10, 0, 0, 1].into()),
            address_v6: None,
            interface: "eth0".to_owned(),
            mode: ModeWish::Auto,
            vips: vec!["203.0.113.10:443".parse().unwrap()],
            tunnel_port: 6080,
            mtu: 1500,
            peers: vec!["10.0.0.0/24".parse().unwrap()],
            sources: Vec::new(),
            syns_per_second: 0,
            syns_burst: 0,
            secret_file: "secret".into(),
            store: StoreSettings::File("nodes.toml".into()),
            policy: Policy::default(),
        };
        Settings {
            steering: Some(steering),
            accounting: false,
            placement: false,
            pins: "pins".into(),
            state_directory: "state".into(),
            run_directory: "state/run".into(),
            audit_directory: "audit".into(),
            admin_socket: "state/run/admin.sock".into(),
        }
    }

    #[test]
    fn what_can_change_does_and_what_cannot_stays_and_is_named() {
        type Change = fn(&mut Settings, &mut postern_steering::Settings);
        let check = |change: Change, expected: &[&str]| {
            let old = settings();
            let mut new = settings();
            let mut steering = new.steering.take().unwrap();
            change(&mut new, &mut steering);
            new.steering = Some(steering);
            let (taken, waiting) = old.renewed(new.clone());
            assert_eq!(waiting, expected);
            let stays = if expected.is_empty() { new } else { old };
            assert_eq!(taken, stays);
        };
        check(|_, _| {}, &[]);
        check(|_, steering| steering.weight = Weight::new(7).unwrap(), &[]);
        check(|_, steering| steering.vips.clear(), &[]);
        check(|_, steering| steering.peers.clear(), &[]);
        check(|_, steering| steering.syns_per_second = 9, &[]);
        check(
            |_, steering| steering.node = NodeId::new(2).unwrap(),
            &["steering.node"],
        );
        check(
            |_, steering| steering.address_v4 = None,
            &["steering's own addresses"],
        );
        check(
            |_, steering| steering.store = StoreSettings::File("other".into()),
            &["steering.store"],
        );
        check(
            |settings, _| settings.accounting = true,
            &["accounting.enabled"],
        );
        check(
            |settings, _| settings.placement = true,
            &["listen.placement"],
        );
        let without = Settings {
            steering: None,
            ..settings()
        };
        assert_eq!(
            settings().renewed(without.clone()),
            (settings(), vec!["steering"])
        );
        assert_eq!(
            without.renewed(settings()),
            (without.clone(), vec!["steering"])
        );
    }
}
