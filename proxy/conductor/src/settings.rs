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
