//! The gateway as processes, between hostile clients and targets that misbehave.

#[path = "system/drivers.rs"]
mod drivers;

#[path = "system/attacks.rs"]
mod attacks;
#[path = "system/audit.rs"]
mod audit;
#[path = "system/echo.rs"]
mod echo;
#[path = "system/echo_peer.rs"]
mod echo_peer;
#[path = "system/echo_violations.rs"]
mod echo_violations;
#[path = "system/families.rs"]
mod families;
#[path = "system/frames.rs"]
mod frames;
#[path = "system/keys.rs"]
mod keys;
#[path = "system/lifecycle.rs"]
mod lifecycle;
#[path = "system/own_host.rs"]
mod own_host;
#[path = "system/pages.rs"]
mod pages;
#[path = "system/policy.rs"]
mod policy;
#[path = "system/privileges.rs"]
mod privileges;
#[path = "system/relay.rs"]
mod relay;
#[path = "system/scene.rs"]
mod scene;
#[path = "system/smuggling.rs"]
mod smuggling;
#[path = "system/streams.rs"]
mod streams;
#[path = "system/targets.rs"]
mod targets;
#[path = "system/tls.rs"]
mod tls;
