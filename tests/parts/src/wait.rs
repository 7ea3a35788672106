//! Waiting for something to become true, never for ever.

use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Calls `look` until it yields a value.
///
/// # Errors
/// `look` failed, or yielded nothing for `patience`.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if start.elapsed() > patience {
            bail!("{what}: nothing within {} s", patience.as_secs_f32());
        }
        sleep(PAUSE);
    }
}

/// True once something accepts connections at `address`.
#[must_use]
pub fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_a_value_an_error_or_the_deadline() {
        let soon = Duration::from_millis(120);
        let mut looks = 0;
        let third = until("third look", soon * 10, || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(third.unwrap(), 3);
        let never = until("never", soon, || Ok(None::<()>)).unwrap_err();
        assert!(
            never.to_string().starts_with("never: nothing within"),
            "{never}"
        );
        assert!(until("bad", soon, || -> Result<Option<()>> { bail!("broken") }).is_err());
    }
}
