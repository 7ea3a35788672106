//! Who carries a connection's records, the kernel or our own record layer, and how the kernel gets them.

use std::os::fd::BorrowedFd;

use rustls::{CipherSuite, ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion};

use super::{Absence, Cipher, Direction, InstallError, Keys, Protocol, install};

/// Who seals and opens the records of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    Kernel,
    /// `postern_relay::Records`, in this process.
    Ourselves(Reason),
}

/// Why the kernel does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error(transparent)]
    Absent(#[from] Absence),
    /// The kernel counts the explicit nonces of TLS 1.2 on from one that it is told, rustls combines
    /// them with the record's number: after a hand-over one could come twice.
    #[error("it is not TLS 1.3")]
    Version,
    #[error("the kernel has no such cipher")]
    Cipher,
}

/// Who is to carry a connection with which this was agreed on; `kernel` is what [`super::available`]
/// said.
#[must_use]
pub fn choose(
    kernel: Result<(), Absence>,
    version: Option<ProtocolVersion>,
    suite: Option<CipherSuite>,
) -> Carrier {
    let reason = match (kernel, version, suite) {
        (Err(absence), _, _) => Reason::Absent(absence),
        (
            Ok(()),
            Some(ProtocolVersion::TLSv1_3),
            Some(
                CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            ),
        ) => return Carrier::Kernel,
        (Ok(()), Some(ProtocolVersion::TLSv1_3), _) => Reason::Cipher,
        (Ok(()), ..) => Reason::Version,
    };
    Carrier::Ourselves(reason)
}

/// Leaves both directions of a connection that [`choose`] gives to the kernel to it. Nothing that the
/// peer sent may have been read and not decrypted, and nothing may wait to be sent.
///
/// # Errors
/// After [`InstallError::Half`] the connection can't go on; after any other error the socket is as it
/// was, and our own record layer can go on.
pub fn take_over(socket: BorrowedFd<'_>, secrets: &ExtractedSecrets) -> Result<(), InstallError> {
    let (receive, send) = (keys(&secrets.rx)?, keys(&secrets.tx)?);
    install(socket, Direction::Receive, &receive)?;
    install(socket, Direction::Send, &send).map_err(|error| InstallError::Half(Box::new(error)))
}

/// Of TLS 1.3: [`choose`] allows no other.
fn keys((sequence, secrets): &(u64, ConnectionTrafficSecrets)) -> Result<Keys<'_>, InstallError> {
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (Cipher::Chacha20Poly1305, key, iv)
        }
        _ => return Err(InstallError::Cipher),
    };
    Ok(Keys {
        protocol: Protocol::Tls13,
        cipher,
        key: key.as_ref(),
        iv: iv.as_ref().try_into().map_err(|_| InstallError::Cipher)?,
        sequence: *sequence,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;
    use crate::relay::ktls::available;

    #[test]
    fn the_kernel_carries_tls_1_3_where_it_can_and_nothing_else() {
        use CipherSuite as Suite;
        const TLS12: Option<ProtocolVersion> = Some(ProtocolVersion::TLSv1_2);
        const TLS13: Option<ProtocolVersion> = Some(ProtocolVersion::TLSv1_3);
        let check = |kernel, version, suite, carrier| {
            assert_eq!(
                choose(kernel, version, suite),
                carrier,
                "{version:?} {suite:?}"
            );
        };
        let ours = Carrier::Ourselves;
        for suite in [
            Suite::TLS13_AES_128_GCM_SHA256,
            Suite::TLS13_AES_256_GCM_SHA384,
            Suite::TLS13_CHACHA20_POLY1305_SHA256,
        ] {
            check(Ok(()), TLS13, Some(suite), Carrier::Kernel);
            for absence in [Absence::Module, Absence::Refused(std::io::ErrorKind::Other)] {
                let reason = Reason::Absent(absence.clone());
                check(Err(absence), TLS13, Some(suite), ours(reason));
            }
        }
        let unknown = [Some(Suite::TLS13_AES_128_CCM_SHA256), None];
        for suite in unknown {
            check(Ok(()), TLS13, suite, ours(Reason::Cipher));
        }
        let old = Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
        check(Ok(()), TLS12, Some(old), ours(Reason::Version));
        check(Ok(()), None, None, ours(Reason::Version));
    }

    fn secrets(sequence: u64) -> (u64, ConnectionTrafficSecrets) {
        let key = AeadKey::from([0x5a; 32]);
        let iv = Iv::new(*b"salt-nonce-8");
        (sequence, ConnectionTrafficSecrets::Aes256Gcm { key, iv })
    }

    #[test]
    fn secrets_become_keys_with_the_number_of_the_next_record() {
        let secrets = secrets(7);
        let keys = keys(&secrets).expect("the cipher is known");
        assert_eq!(
            (keys.protocol, keys.cipher),
            (Protocol::Tls13, Cipher::Aes256Gcm)
        );
        assert_eq!((keys.key, keys.iv), (&[0x5a; 32][..], b"salt-nonce-8"));
        assert_eq!(keys.sequence, 7);
    }

    #[test]
    fn a_socket_that_the_kernel_does_not_take_over_stays_as_it_was() {
        if available().is_ok() {
            println!("not tried: this kernel takes sockets over");
            return;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let mut socket = TcpStream::connect(address).expect("it listens");
        let (mut peer, _) = listener.accept().expect("it was connected to");
        let both = ExtractedSecrets {
            tx: secrets(1),
            rx: secrets(2),
        };
        let error = take_over(socket.as_fd(), &both).expect_err("there is no TLS here");
        assert!(matches!(error, InstallError::Absent(_)), "{error}");
        socket.write_all(b"as it is").expect("it is open");
        let mut came = [0; 8];
        peer.read_exact(&mut came).expect("it comes");
        assert_eq!(&came, b"as it is");
    }
}
