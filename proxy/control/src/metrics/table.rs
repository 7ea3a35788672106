//! Every metric: its name, its meaning, where its value comes from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use postern_snapshot::{CoreMetrics, EngineInfo, Histogram};
use prometheus_client::metrics::MetricType;

/// One metric: what it is called, what it means, where its value comes from.
pub(super) struct Metric {
    /// Unit last; in the text, counters end in `_total`.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) value: Value,
}

/// A core's values carry the label `core`.
pub(super) enum Value {
    CoreCounter(fn(&CoreMetrics) -> u64),
    CoreGauge(fn(&CoreMetrics) -> u64),
    /// Browser to target (`up`) and back (`down`).
    CoreDirections(fn(&CoreMetrics) -> (u64, u64)),
    CoreReasons(fn(&CoreMetrics) -> &BTreeMap<String, u64>),
    CoreHistogram(fn(&CoreMetrics) -> &Histogram),
    Counter(fn(&Own) -> u64),
    Gauge(fn(&Own) -> i64),
    Results(fn(&Own) -> &[(&'static str, u64)]),
    /// Always 1: what it says is in its labels.
    Info(fn(&EngineInfo) -> [(&'static str, &str); 3]),
}

use Value::{
    CoreCounter, CoreDirections, CoreGauge, CoreHistogram, CoreReasons, Counter, Gauge, Info,
    Results,
};

const fn metric(name: &'static str, help: &'static str, value: Value) -> Metric {
    Metric { name, help, value }
}

/// Every metric that is served.
pub(super) static METRICS: [Metric; 35] = [
    metric(
        "postern_connections_accepted",
        "Connections accepted",
        CoreCounter(|core| core.connections_accepted),
    ),
    metric(
        "postern_connections_live",
        "Connections open now",
        CoreGauge(|core| core.connections_live),
    ),
    metric(
        "postern_sessions_opened",
        "Sessions that reached their desktop",
        CoreCounter(|core| core.sessions_opened),
    ),
    metric(
        "postern_sessions_live",
        "Sessions on the core now",
        CoreGauge(|core| core.sessions_live),
    ),
    metric(
        "postern_tls_handshakes_live",
        "TLS handshakes with browsers under way",
        CoreGauge(|core| core.tls_handshakes_live),
    ),
    metric(
        "postern_tls_handshakes",
        "TLS handshakes with browsers that succeeded",
        CoreCounter(|core| core.tls_handshakes),
    ),
    metric(
        "postern_tls_handshake_failures",
        "TLS handshakes with browsers that failed",
        CoreCounter(|core| core.tls_handshake_failures),
    ),
    metric(
        "postern_relay_bytes",
        "Payload bytes relayed, by direction",
        CoreDirections(|core| (core.bytes_up, core.bytes_down)),
    ),
    metric(
        "postern_relay_messages",
        "WebSocket messages relayed, by direction",
        CoreDirections(|core| (core.messages_up, core.messages_down)),
    ),
    metric(
        "postern_web_connections",
        "Connections handed to the web server",
        CoreCounter(|core| core.web_connections),
    ),
    metric(
        "postern_dials",
        "Connections to targets begun",
        CoreCounter(|core| core.dials),
    ),
    metric(
        "postern_refusals",
        "Connections refused before a session began, by reason",
        CoreReasons(|core| &core.refusals),
    ),
    metric(
        "postern_closes",
        "Sessions that ended, by reason",
        CoreReasons(|core| &core.closes),
    ),
    metric(
        "postern_core_audit_records",
        "Audit records that the core wrote",
        CoreCounter(|core| core.audit_records),
    ),
    metric(
        "postern_core_audit_losses",
        "Audit records that the core could not write",
        CoreCounter(|core| core.audit_losses),
    ),
    metric(
        "postern_upgrade_to_desktop_seconds",
        "From the upgrade request to the desktop's first answer",
        CoreHistogram(|core| &core.upgrade_to_desktop),
    ),
    metric(
        "postern_relay_latency_seconds",
        "From bytes read on one side to their write on the other",
        CoreHistogram(|core| &core.relay_latency),
    ),
    metric(
        "postern_logins",
        "Login attempts, by result",
        Results(|own| &own.logins),
    ),
    metric("postern_logouts", "Logouts", Counter(|own| own.logouts)),
    metric(
        "postern_web_requests",
        "Requests to the web server",
        Counter(|own| own.web_requests),
    ),
    metric(
        "postern_web_misdirected",
        "Requests for a host that is none of ours",
        Counter(|own| own.web_misdirected),
    ),
    metric(
        "postern_web_connections_refused",
        "Web connections over the limit",
        Counter(|own| own.web_connections_refused),
    ),
    metric(
        "postern_target_certificate_changes",
        "Sessions refused because a target showed another certificate than the pinned one",
        Counter(|own| own.certificate_changes),
    ),
    metric(
        "postern_reloads_refused",
        "New configurations and certificates that were refused",
        Counter(|own| own.reloads_refused),
    ),
    metric(
        "postern_control_audit_records",
        "Audit records that control wrote",
        Counter(|own| own.audit_records),
    ),
    metric(
        "postern_control_audit_losses",
        "Audit records that control could not write",
        Counter(|own| own.audit_losses),
    ),
    metric(
        "postern_audit_checkpoint_number",
        "Number of the last signed audit checkpoint",
        Gauge(|own| signed(own.checkpoint)),
    ),
    metric(
        "postern_engine_up",
        "1 while the engine is connected to control",
        Gauge(|own| i64::from(own.engine_up)),
    ),
    metric(
        "postern_engine_info",
        "1; what the engine runs on: `driver` is `io_uring` or `epoll`, `kernel_tls` says whether the kernel carries TLS records, `placement` how new connections come to cores: by the kernel's `hash`, by `load`, or by the hash since placement by load is `unavailable`",
        Info(|info| {
            [
                ("driver", info.driver.as_str()),
                ("kernel_tls", info.kernel_tls.as_str()),
                ("placement", info.placement.as_str()),
            ]
        }),
    ),
    metric(
        "postern_snapshot_version",
        "Version of the newest state",
        Gauge(|own| signed(own.snapshot_version)),
    ),
    metric(
        "postern_snapshot_version_applied",
        "Version of the state in force on every core",
        Gauge(|own| signed(own.snapshot_version_applied)),
    ),
    metric(
        "postern_live_sessions",
        "Live sessions that control knows of",
        Gauge(|own| signed(own.live_sessions)),
    ),
    metric(
        "postern_pins",
        "Targets whose certificate was kept at first use",
        Gauge(|own| signed(own.pins)),
    ),
    metric(
        "postern_revocations",
        "Revocations in force",
        Gauge(|own| signed(own.revocations)),
    ),
    metric(
        "postern_certificate_expiry_seconds",
        "Until the server certificate ends; negative afterwards",
        Gauge(|own| own.certificate_expiry_s),
    ),
];

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Control's own numbers.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) logins: [(&'static str, u64); 4],
    pub(super) logouts: u64,
    pub(super) web_requests: u64,
    pub(super) web_misdirected: u64,
    pub(super) web_connections_refused: u64,
    pub(super) certificate_changes: u64,
    pub(super) reloads_refused: u64,
    pub(super) audit_records: u64,
    pub(super) audit_losses: u64,
    pub(super) checkpoint: u64,
    pub(super) engine_up: bool,
    /// None until an engine has said hello.
    pub(super) engine_info: Option<EngineInfo>,
    pub(super) snapshot_version: u64,
    pub(super) snapshot_version_applied: u64,
    pub(super) live_sessions: u64,
    pub(super) pins: u64,
    pub(super) revocations: u64,
    pub(super) certificate_expiry_s: i64,
}

impl Value {
    pub(super) fn kind(&self) -> MetricType {
        match self {
            CoreCounter(_) | CoreDirections(_) | CoreReasons(_) | Counter(_) | Results(_) => {
                MetricType::Counter
            }
            CoreGauge(_) | Gauge(_) | Info(_) => MetricType::Gauge,
            CoreHistogram(_) => MetricType::Histogram,
        }
    }

    /// Labels in words, for the manual.
    fn labels(&self) -> &'static str {
        match self {
            CoreCounter(_) | CoreGauge(_) | CoreHistogram(_) => "`core`",
            CoreDirections(_) => "`core`, `direction`",
            CoreReasons(_) => "`core`, `reason`",
            Results(_) => "`result`",
            Info(_) => "`driver`, `kernel_tls`, `placement`",
            Counter(_) | Gauge(_) => "",
        }
    }
}

/// Every metric with its type, labels and meaning, as Markdown.
#[must_use]
pub fn metrics_markdown() -> String {
    let mut text = "# Metrics\n\n\
        Served for Prometheus at `metrics.listen`, path `/metrics`.\n\n\
        | name | type | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for Metric { name, help, value } in &METRICS {
        let (suffix, kind) = match value.kind() {
            MetricType::Counter => ("_total", "counter"),
            MetricType::Histogram => ("", "histogram"),
            _ => ("", "gauge"),
        };
        let labels = value.labels();
        writeln!(text, "| `{name}{suffix}` | {kind} | {labels} | {help} |")
            .expect("a string grows");
    }
    text
}
