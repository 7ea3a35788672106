//! The published keys: whoever has them can check every token, and make none.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use postern_tests::browserless::{APPLICATION_COOKIE, ORGANISATION_COOKIE};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;

use crate::scene::Scene;

const JWKS: &str = "/.well-known/jwks.json";

/// [RFC 7515 §5.2] A verifier of its own, as other software has one: the claims of a good token.
fn verify(jwks: &Value, token: &str) -> Result<Value> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else {
        anyhow::bail!("{} parts", parts.len());
    };
    let header: Value = serde_json::from_slice(&BASE64URL.decode(header)?)?;
    ensure!(header["alg"] == "ES256", "{header}");
    let keys = jwks["keys"].as_array().context("keys")?;
    let key = keys.iter().find(|key| key["kid"] == header["kid"]);
    let key = key.context("the token's key is not published")?;
    let coordinate = |name: &str| {
        let text = key[name].as_str().context("a coordinate")?;
        Ok::<_, anyhow::Error>(BASE64URL.decode(text)?)
    };
    let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
    ensure!(point.len() == 65, "a point of {} bytes", point.len());
    let signed = &token[..token.len() - signature.len() - 1];
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &BASE64URL.decode(signature)?)
        .map_err(|_| anyhow::anyhow!("the signature is wrong"))?;
    Ok(serde_json::from_slice(&BASE64URL.decode(payload)?)?)
}

#[test]
fn the_published_keys_verify_every_token_and_hold_nothing_private() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let answer = scene.gateway.browser().get(JWKS)?;
    ensure!(answer.status == 200, "{}", answer.status);
    ensure!(answer.header("content-type") == Some("application/json"));
    let jwks = answer.json()?;
    let members: Vec<&String> = jwks.as_object().context("a set")?.keys().collect();
    ensure!(members == ["keys"], "{members:?}");
    let keys = jwks["keys"].as_array().context("keys")?;
    ensure!(!keys.is_empty());
    let mut ids = BTreeSet::new();
    for key in keys {
        let fields: BTreeSet<&str> = key
            .as_object()
            .context("a key")?
            .keys()
            .map(String::as_str)
            .collect();
        let public = BTreeSet::from(["alg", "crv", "kid", "kty", "use", "x", "y"]);
        ensure!(fields == public, "{fields:?}");
        let kind = [&key["kty"], &key["crv"], &key["alg"], &key["use"]];
        ensure!(kind == ["EC", "P-256", "ES256", "sig"], "{key}");
        ensure!(ids.insert(key["kid"].as_str()), "a key id comes twice");
    }

    let lab = scene.alice.token("lab").context(APPLICATION_COOKIE)?;
    let claims = verify(&jwks, lab)?;
    ensure!(claims["iss"] == scene.alice.origin(), "{claims}");
    ensure!(claims["email"] == "alice@example.org", "{claims}");
    let login = scene.alice.cookie(ORGANISATION_COOKIE).context("a login")?;
    let of_login = verify(&jwks, login)?;
    ensure!(of_login["aud"] != claims["aud"], "{of_login}");

    // The verifier itself can say no.
    let (signed, signature) = lab.rsplit_once('.').context("a signature")?;
    let (_, others) = login.rsplit_once('.').context("a signature")?;
    ensure!(verify(&jwks, &format!("{signed}.{others}")).is_err());
    ensure!(verify(&jwks, &format!("{signed}.{signature}")).is_ok());
    Ok(())
}

#[test]
fn the_keys_of_before_are_there_after_a_restart() -> Result<()> {
    let mut scene = Scene::start(|configuration| configuration)?;
    let before = scene.gateway.browser().get(JWKS)?.json()?;
    scene.gateway.stop()?;
    scene.gateway.launch()?;
    let after = scene.gateway.browser().get(JWKS)?.json()?;
    ensure!(before == after, "{before:#} became {after:#}");
    // And with them the login of before.
    scene.alice.open("lab")?;
    scene.alice.desktop("lab").map(drop)
}
