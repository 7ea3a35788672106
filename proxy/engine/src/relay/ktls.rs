//! TLS records in the kernel: whether this kernel has them, and how a socket is given its keys.
//!
//! With them a passthrough leg under TLS can be spliced. Few kernels come with the module loaded, so it
//! is looked for once and told in the log; nothing depends on it.

mod carrier;
pub(super) mod control;

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::sync::OnceLock;

use zeroize::Zeroizing;

pub use carrier::{Carrier, Reason, choose, take_over};

const UPPER_LAYER: &[u8] = b"tls\0";

/// The longest crypto info: header, nonce and salt (12 bytes together), key, record sequence.
const INFO_BYTES_MAX: usize = 4 + 12 + 32 + 8;

/// Why TLS can't be left to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absence {
    #[error("the kernel has no TLS module (CONFIG_TLS), or it is not loaded")]
    Module,
    #[error("the kernel refuses the TLS layer: {0}")]
    Refused(io::ErrorKind),
    #[error("no loopback socket to try it on: {0}")]
    Untried(io::ErrorKind),
}

/// Why one socket could not be given its keys.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Absent(#[from] Absence),
    #[error("a key of {have} bytes does not fit the cipher, which takes {need}")]
    Key { have: usize, need: usize },
    #[error("the kernel has no such cipher")]
    Cipher,
    #[error("the kernel has taken one direction over and not the other")]
    Half(#[source] Box<InstallError>),
    #[error("the kernel refused the keys of the socket")]
    Socket(#[source] io::Error),
}

/// Which way records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Send,
    Receive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tls12,
    Tls13,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

/// The traffic keys of one direction.
pub struct Keys<'a> {
    pub protocol: Protocol,
    pub cipher: Cipher,
    pub key: &'a [u8],
    /// As the key schedule gives it, or for TLS 1.2 with AES the salt and then the explicit nonce.
    pub iv: &'a [u8; 12],
    /// The number of the next record.
    pub sequence: u64,
}

/// Whether this kernel can carry TLS; looked for once, then remembered.
///
/// # Errors
/// Says why not.
pub fn available() -> Result<(), Absence> {
    static FOUND: OnceLock<Result<(), Absence>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let found = probe();
            match &found {
                Ok(()) => tracing::info!("kernel TLS is available"),
                Err(absence) => tracing::info!(reason = %absence, "kernel TLS is not available"),
            }
            found
        })
        .clone()
}

/// Leaves one direction of a connected TCP socket's records to the kernel.
///
/// # Errors
/// When this kernel has no TLS or refuses the keys; the socket is as it was then, unless its other
/// direction was installed before.
pub fn install(
    socket: BorrowedFd<'_>,
    direction: Direction,
    keys: &Keys<'_>,
) -> Result<(), InstallError> {
    available()?;
    let info = crypto_info(keys)?;
    match set_option(socket, libc::SOL_TCP, libc::TCP_ULP, UPPER_LAYER) {
        // The other direction came first.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        other => other.map_err(InstallError::Socket)?,
    }
    let option = match direction {
        Direction::Send => libc::TLS_TX,
        Direction::Receive => libc::TLS_RX,
    };
    set_option(socket, libc::SOL_TLS, option, &info).map_err(InstallError::Socket)
}

impl Cipher {
    const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }

    const fn number(self) -> u16 {
        match self {
            Self::Aes128Gcm => libc::TLS_CIPHER_AES_GCM_128,
            Self::Aes256Gcm => libc::TLS_CIPHER_AES_GCM_256,
            Self::Chacha20Poly1305 => libc::TLS_CIPHER_CHACHA20_POLY1305,
        }
    }
}

fn probe() -> Result<(), Absence> {
    let untried = |error: io::Error| Absence::Untried(error.kind());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(untried)?;
    let address = listener.local_addr().map_err(untried)?;
    // The layer takes established connections only; the listener's queue is enough for that.
    let socket = TcpStream::connect(address).map_err(untried)?;
    set_option(socket.as_fd(), libc::SOL_TCP, libc::TCP_ULP, UPPER_LAYER).map_err(|error| {
        match error.kind() {
            io::ErrorKind::NotFound => Absence::Module,
            kind => Absence::Refused(kind),
        }
    })
}

/// What the kernel wants to know, as in its `linux/tls.h`: header (version, cipher; native byte order),
/// explicit nonce, key, salt, record sequence (big-endian). ChaCha20 has no salt and the whole IV first.
fn crypto_info(keys: &Keys<'_>) -> Result<Zeroizing<Vec<u8>>, InstallError> {
    let need = keys.cipher.key_bytes();
    if keys.key.len() != need {
        return Err(InstallError::Key {
            have: keys.key.len(),
            need,
        });
    }
    let version: u16 = match keys.protocol {
        Protocol::Tls12 => 0x0303,
        Protocol::Tls13 => 0x0304,
    };
    let (salt, nonce) = match keys.cipher {
        Cipher::Aes128Gcm | Cipher::Aes256Gcm => keys.iv.split_at(4),
        Cipher::Chacha20Poly1305 => keys.iv.split_at(0),
    };
    let mut info = Zeroizing::new(Vec::with_capacity(INFO_BYTES_MAX));
    info.extend(version.to_ne_bytes());
    info.extend(keys.cipher.number().to_ne_bytes());
    info.extend(nonce);
    info.extend(keys.key);
    info.extend(salt);
    info.extend(keys.sequence.to_be_bytes());
    Ok(info)
}

fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let bytes = libc::socklen_t::try_from(value.len()).expect("options are a few dozen bytes");
    // SAFETY: the kernel reads `bytes` bytes of the slice, which outlives the call.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            bytes,
        )
    };
    match status {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    const IV: &[u8; 12] = b"salt-nonce-8";
    const SEQUENCE: u64 = 0x0102_0304_0506_0708;

    fn info(protocol: Protocol, cipher: Cipher) -> Vec<u8> {
        let key = vec![0x5a; cipher.key_bytes()];
        let keys = Keys {
            protocol,
            cipher,
            key: &key,
            iv: IV,
            sequence: SEQUENCE,
        };
        crypto_info(&keys).expect("the key fits").to_vec()
    }

    #[track_caller]
    fn check(info: &[u8], version: u16, cipher: u16, fields: &[(usize, &[u8])], bytes: usize) {
        assert_eq!(info.len(), bytes);
        assert_eq!(info[..2], version.to_ne_bytes());
        assert_eq!(info[2..4], cipher.to_ne_bytes());
        for (offset, field) in fields {
            assert_eq!(&&info[*offset..offset + field.len()], field, "at {offset}");
        }
    }

    #[test]
    fn layouts_are_those_of_the_kernel() {
        use libc::{
            tls12_crypto_info_aes_gcm_128 as Aes128, tls12_crypto_info_aes_gcm_256 as Aes256,
            tls12_crypto_info_chacha20_poly1305 as Chacha,
        };
        let sequence = SEQUENCE.to_be_bytes();
        check(
            &info(Protocol::Tls13, Cipher::Aes128Gcm),
            0x0304,
            51,
            &[
                (offset_of!(Aes128, iv), b"-nonce-8"),
                (offset_of!(Aes128, key), &[0x5a; 16]),
                (offset_of!(Aes128, salt), b"salt"),
                (offset_of!(Aes128, rec_seq), &sequence),
            ],
            size_of::<Aes128>(),
        );
        check(
            &info(Protocol::Tls12, Cipher::Aes256Gcm),
            0x0303,
            52,
            &[
                (offset_of!(Aes256, iv), b"-nonce-8"),
                (offset_of!(Aes256, key), &[0x5a; 32]),
                (offset_of!(Aes256, salt), b"salt"),
                (offset_of!(Aes256, rec_seq), &sequence),
            ],
            size_of::<Aes256>(),
        );
        check(
            &info(Protocol::Tls13, Cipher::Chacha20Poly1305),
            0x0304,
            54,
            &[
                (offset_of!(Chacha, iv), IV),
                (offset_of!(Chacha, key), &[0x5a; 32]),
                (offset_of!(Chacha, rec_seq), &sequence),
            ],
            size_of::<Chacha>(),
        );
    }

    #[test]
    fn a_key_of_another_cipher_is_refused() {
        let keys = Keys {
            protocol: Protocol::Tls13,
            cipher: Cipher::Aes256Gcm,
            key: &[0; 16],
            iv: IV,
            sequence: 0,
        };
        assert!(matches!(
            crypto_info(&keys),
            Err(InstallError::Key { have: 16, need: 32 })
        ));
    }

    #[test]
    fn installing_says_so_where_the_kernel_has_no_tls() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
        let socket =
            TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let keys = Keys {
            protocol: Protocol::Tls13,
            cipher: Cipher::Aes128Gcm,
            key: &[1; 16],
            iv: IV,
            sequence: 0,
        };
        let installed = install(socket.as_fd(), Direction::Send, &keys);
        match available() {
            Ok(()) => installed.expect("an available kernel takes keys"),
            Err(absence) => {
                let error = installed.expect_err("there is no TLS here");
                assert_eq!(error.to_string(), absence.to_string());
            }
        }
    }
}
