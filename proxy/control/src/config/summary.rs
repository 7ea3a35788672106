//! What a configuration means, in words, for `postern check`.

use std::fmt::Write as _;

use postern_access::{Action, CertificatePolicy, Duration, RdpSecurity, Selector};
use postern_snapshot::Placement;
use postern_steering::{ModeWish, Settings, SourceRule, StoreSettings};

use super::{CertificateSource, Config};

impl Config {
    /// A paragraph on the node, then one on every application and user.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        self.write_summary(&mut text).expect("a string grows");
        text
    }

    fn write_summary(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "{} at {}", self.organisation, self.origin)?;
        let listen: Vec<_> = self.listen.iter().map(ToString::to_string).collect();
        writeln!(text, "  listens on {}", listen.join(", "))?;
        match &self.certificate {
            CertificateSource::Files { chain, key } => {
                writeln!(
                    text,
                    "  certificate {}, key {}",
                    chain.display(),
                    key.display()
                )?;
            }
            CertificateSource::SelfSigned => writeln!(text, "  certificate self-signed")?,
        }
        writeln!(text, "  state in {}", self.state_directory.display())?;
        let when = if self.audit.fail_closed {
            "no session without it"
        } else {
            "sessions go on without it"
        };
        writeln!(
            text,
            "  audit in {}, {when}",
            self.audit.directory.display()
        )?;
        match self.metrics {
            Some(address) => writeln!(text, "  metrics at http://{address}/metrics")?,
            None => writeln!(text, "  no metrics")?,
        }
        writeln!(text, "  a login lasts {}", Duration(self.session_s))?;
        if self.placement == Placement::Load {
            writeln!(text, "  the kernel places connections on cores by load")?;
        }
        if self.accounting {
            writeln!(text, "  the kernel accounts for every connection")?;
        }
        if self.needs_conductor() {
            let pins = self.bpf_directory.display();
            writeln!(text, "  programs of the kernel are pinned in {pins}")?;
        }
        if let Some(steering) = &self.steering {
            write_steering(text, steering, self.segment_bytes_max())?;
        }
        for application in &self.applications {
            let public = &application.public;
            writeln!(
                text,
                "\napplication \"{}\" ({})",
                application.name, application.title
            )?;
            writeln!(
                text,
                "  {}{}/ opens {}",
                public.origin, public.prefix, application.target
            )?;
            let security: Vec<_> = application
                .security
                .iter()
                .map(|security| match security {
                    RdpSecurity::Nla => "NLA",
                    RdpSecurity::Tls => "TLS",
                })
                .collect();
            let judged = match &application.certificate {
                CertificatePolicy::FirstUse => "is kept at first use",
                CertificatePolicy::Pin(_) => "is pinned",
                CertificatePolicy::Ca(_) => "leads to a given root",
            };
            writeln!(
                text,
                "  {}; its certificate {judged}",
                security.join(" or ")
            )?;
            let session = application.session;
            write!(text, "  a session lasts {}", Duration(session.duration_s))?;
            match session.idle_s {
                0 => writeln!(text)?,
                idle_s => writeln!(text, ", {} without input", Duration(idle_s))?,
            }
            for policy in &application.policies {
                let verb = match policy.action {
                    Action::Allow => "allows",
                    Action::Block => "blocks",
                };
                write!(
                    text,
                    "  \"{}\" {verb} {}",
                    policy.name,
                    rules(&policy.include, " or ")
                )?;
                if !policy.require.is_empty() {
                    write!(text, ", only with {}", rules(&policy.require, " and "))?;
                }
                if !policy.exclude.is_empty() {
                    write!(text, ", never {}", rules(&policy.exclude, " or "))?;
                }
                match policy.session_duration_s {
                    Some(seconds) => writeln!(text, ", for {}", Duration(seconds))?,
                    None => writeln!(text)?,
                }
            }
            writeln!(text, "  everybody else is refused")?;
        }
        for local in &self.users {
            let user = &local.user;
            write!(text, "\nuser \"{}\" <{}>", user.id, user.email)?;
            if !user.groups.is_empty() {
                write!(text, " in {}", user.groups.join(", "))?;
            }
        }
        writeln!(text)
    }
}

fn write_steering(
    text: &mut String,
    steering: &Settings,
    segment_bytes_max: Option<u16>,
) -> std::fmt::Result {
    let listed = |items: Vec<String>| items.join(", ");
    let own = [
        steering.address_v4.map(|address| address.to_string()),
        steering.address_v6.map(|address| address.to_string()),
    ];
    writeln!(
        text,
        "\nsteering as node {}, weight {}",
        steering.node.get(),
        steering.weight.get()
    )?;
    let vips = steering.vips.iter().map(ToString::to_string).collect();
    let mode = match steering.mode {
        ModeWish::Auto => "in the driver where it can",
        ModeWish::Native => "in the driver or not at all",
        ModeWish::Generic => "in the network stack",
    };
    writeln!(
        text,
        "  serves {} with all nodes, on {}, {mode}",
        listed(vips),
        steering.interface
    )?;
    writeln!(
        text,
        "  is reached by other nodes at {}, tunnels at UDP port {} with packets up to {} bytes",
        listed(own.into_iter().flatten().collect()),
        steering.tunnel_port,
        steering.mtu
    )?;
    if let Some(bytes) = segment_bytes_max {
        writeln!(
            text,
            "  tells browsers to send at most {bytes} bytes in a segment"
        )?;
    }
    let peers = steering.peers.iter().map(ToString::to_string).collect();
    writeln!(text, "  takes nodes from {} alone", listed(peers))?;
    match &steering.store {
        StoreSettings::File(file) => writeln!(
            text,
            "  finds them in {}: no health, no moves, no drain",
            file.display()
        )?,
        StoreSettings::Etcd {
            endpoints, prefix, ..
        } => writeln!(
            text,
            "  finds them in etcd at {}, below {prefix}",
            endpoints.join(", ")
        )?,
    }
    for (prefix, rule) in &steering.sources {
        match rule {
            SourceRule::Deny => writeln!(text, "  drops what comes from {prefix}")?,
            SourceRule::Allow => writeln!(text, "  limits nothing of {prefix}")?,
        }
    }
    if steering.syns_per_second > 0 {
        writeln!(
            text,
            "  takes {} new connections a second of one source, {} at once",
            steering.syns_per_second, steering.syns_burst
        )?;
    }
    Ok(())
}

fn rules(selectors: &[Selector], joint: &str) -> String {
    let rules: Vec<_> = selectors.iter().map(ToString::to_string).collect();
    rules.join(joint)
}
