//! Self-signed certificates, files that change, files that do not hold.

use super::*;
use crate::fixture::{CONFIG, Folder};

fn folder() -> (Folder, Config) {
    let folder = Folder::new(CONFIG);
    std::fs::create_dir(folder.path("state")).expect("made");
    let config = folder.config();
    (folder, config)
}

#[test]
fn a_self_signed_certificate_names_every_host_and_is_kept() {
    let (folder, config) = folder();
    let made = load(&config).expect("made");
    assert_eq!(made.certificate.names, ["gw.example", "office.example"]);
    assert!(clock::now().until(made.expires_at) > RENEW_S);
    let again = load(&config).expect("kept");
    assert_eq!(again.certificate.chain_pem, made.certificate.chain_pem);
    let mode = std::fs::metadata(folder.path("state").join(KEY_FILE))
        .expect("there")
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn another_host_makes_another_self_signed_certificate() {
    let (folder, config) = folder();
    let made = load(&config).expect("made");
    folder.write(
        "postern.toml",
        &CONFIG.replace("office.example", "127.0.0.1"),
        0o644,
    );
    let again = load(&folder.config()).expect("made");
    assert_ne!(again.certificate.chain_pem, made.certificate.chain_pem);
    assert_eq!(again.certificate.names, ["gw.example", "127.0.0.1"]);
}

#[test]
fn a_wildcard_names_one_label() {
    let (_folder, config) = folder();
    let mut loaded = load(&config).expect("made");
    loaded.certificate.names = vec!["*.example".to_owned()];
    assert!(missing_hosts(&loaded, &config).is_empty());
    loaded.certificate.names = vec!["*.gw.example".to_owned(), "example".to_owned()];
    assert_eq!(
        missing_hosts(&loaded, &config),
        ["gw.example", "office.example"]
    );
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let (folder, config) = folder();
    load(&config).expect("made");
    let chain = folder.path("state").join(CHAIN_FILE);
    let key = folder.path("state").join(KEY_FILE);
    let files = "chain_file = \"state/self-signed.chain.pem\"\nkey_file = \"key.pem\"";
    let text = CONFIG.replace("self_signed = true", files);
    let check = |key: &str, why: &str| {
        folder.write("key.pem", key, 0o600);
        folder.write("postern.toml", &text, 0o644);
        let error = Config::load(&folder.path("postern.toml")).expect_err("is refused");
        assert!(error.to_string().contains(why), "{error}");
    };
    let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    check(&other, "does not fit the certificate");
    check("rubbish", "no private key");
    let right = std::fs::read_to_string(&key).expect("key");
    folder.write("key.pem", &right, 0o600);
    assert!(Config::load(&folder.path("postern.toml")).is_ok());
    std::fs::write(&chain, "rubbish").expect("written");
    check(&right, "holds no certificate");
}
