//! TLS to etcd: both ends show certificates, and take none but the right ones.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use postern_parts::etcd::{Options, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use super::parts::{access, etcd_of, key, sealer};
use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn write(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// A certificate by `authority` and its key.
fn certify(folder: &Path, name: &str, authority: &Authority) -> (PathBuf, PathBuf) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let text = certificate.pem();
    let certificate = write(folder, &format!("{name}.pem"), &text, 0o644);
    let text = key.serialize_pem();
    (
        certificate,
        write(folder, &format!("{name}-key.pem"), &text, 0o600),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_a_certificate_reaches_an_etcd_that_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (ours, theirs) = (authority(), authority());
    let ca_file = write(folder, "ca.pem", &ours.pem(), 0o644);
    let foreign_ca = write(folder, "foreign-ca.pem", &theirs.pem(), 0o644);
    let (certificate_file, key_file) = certify(folder, "server", &ours);
    let options = Options {
        tls: Some(Tls {
            ca_file: ca_file.clone(),
            certificate_file,
            key_file,
        }),
        ..Options::default()
    };
    let server = postern_parts::Etcd::start_with(1, options).unwrap();
    let own = certify(folder, "node", &ours);
    let foreign = certify(folder, "foreign", &theirs);

    let url = server.url();
    let with = |url: &str, ca_file: &Path, certificate: Option<&(PathBuf, PathBuf)>| Access {
        ca_file: Some(ca_file.to_owned()),
        certificate_file: certificate.map(|(certificate, _)| certificate.clone()),
        key_file: certificate.map(|(_, key)| key.clone()),
        ..access(vec![url.to_owned()])
    };
    let good = etcd_of(&with(&url, &ca_file, Some(&own)), 1);
    good.put(&key("table"), b"1", None).await.unwrap();
    assert!(good.read(&key("table")).await.unwrap().is_some());
    let mut listener = super::parts::Listener::new(&good);
    listener.expect(&["table=1", "complete"]).await;

    let check = async |access: Access| {
        let etcd = etcd_of(&access, 1);
        let error = etcd.read(&key("table")).await.unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Unreachable(_) | StoreError::Unanswered(_)
            ),
            "{error}"
        );
    };
    check(with(&url, &ca_file, None)).await;
    check(with(&url, &ca_file, Some(&foreign))).await;
    check(with(&url, &foreign_ca, Some(&own))).await;
    // A certificate that is renewed in its place is the next connection's.
    let (renewed, renewed_key) = certify(folder, "renewed", &theirs);
    let waiting = etcd_of(
        &with(
            &url,
            &ca_file,
            Some(&(renewed.clone(), renewed_key.clone())),
        ),
        1,
    );
    assert!(waiting.read(&key("table")).await.is_err());
    std::fs::copy(&own.0, &renewed).unwrap();
    std::fs::copy(&own.1, &renewed_key).unwrap();
    assert!(waiting.read(&key("table")).await.unwrap().is_some());
    // The certificate is not that of this name.
    let named = url.replace("127.0.0.1", "localhost");
    check(with(&named, &ca_file, Some(&own))).await;
    check(with(&url.replace("https", "http"), &ca_file, Some(&own))).await;
}

#[test]
fn files_that_can_not_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ours = authority();
    let ca_file = write(folder, "ca.pem", &ours.pem(), 0o644);
    let empty = write(folder, "empty.pem", "", 0o600);
    let (certificate, key) = certify(folder, "node", &ours);
    let open_key = folder.join("open-key.pem");
    std::fs::copy(&key, &open_key).unwrap();
    std::fs::set_permissions(&open_key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let (_, other_key) = certify(folder, "other", &ours);

    let check = |ca: &Path, certificate: Option<&Path>, key: Option<&Path>, why: &str| {
        let access = Access {
            ca_file: Some(ca.to_owned()),
            certificate_file: certificate.map(Path::to_owned),
            key_file: key.map(Path::to_owned),
            ..access(vec!["https://127.0.0.1:1".to_owned()])
        };
        let error = match Etcd::open(&access, sealer(1)) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(error.is_empty(), why.is_empty(), "{error}");
        assert!(error.contains(why), "{error}");
    };
    let (certificate, key) = (certificate.as_path(), key.as_path());
    check(&ca_file, None, None, "");
    check(&ca_file, Some(certificate), Some(key), "");
    check(&folder.join("none.pem"), None, None, "none.pem");
    check(&empty, None, None, "empty.pem: there is no certificate");
    check(&ca_file, Some(certificate), None, "go together");
    check(&ca_file, None, Some(key), "go together");
    check(&ca_file, Some(certificate), Some(&open_key), "chmod 600");
    check(&ca_file, Some(certificate), Some(&empty), "no private key");
    check(&ca_file, Some(certificate), Some(&other_key), "node.pem");
}
