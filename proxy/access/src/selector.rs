//! Selectors: what a policy can ask of an identity or a request.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One condition. In TOML: `"everyone"`, `{ email = "a@b.c" }`, `{ ip = "10.0.0.0/8" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// Any signed-in user.
    Everyone,
    /// The exact address, letter case ignored.
    Email(String),
    /// The part after `@`, letter case ignored.
    EmailDomain(String),
    /// A group that the identity carries.
    Group(String),
    /// The client's address, at every request.
    Ip(#[schemars(with = "String")] IpNet),
    /// The client's country (ISO 3166-1 alpha-2), where known.
    Country(String),
    /// An authentication method [RFC 8176] used at login, e.g. `pwd`, `otp`.
    AuthMethod(String),
}
