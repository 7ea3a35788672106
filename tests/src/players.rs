//! People who work at their desktops: a message now and then, and how long its echo takes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::browserless::WebSocket;

/// Between two messages of one player.
const PAUSE: Duration = Duration::from_millis(200);

/// What a key or a movement of the mouse is about.
const MESSAGE_BYTES: usize = 64;

/// How long the echoes took.
#[derive(Debug)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// All but one of a hundred are within this.
    #[must_use]
    pub fn p99(&self) -> Duration {
        self.0[(self.0.len() * 99).div_ceil(100) - 1]
    }

    #[must_use]
    pub fn longest(&self) -> Duration {
        self.0[self.0.len() - 1]
    }
}

/// Plays at all desktops at the same time, which must be live and echo. An echo's time counts from
/// when its message was due: what kept the message waiting kept the player waiting.
///
/// # Errors
/// A desktop ends, or another echo comes than the one expected.
pub fn play(desktops: &mut [WebSocket], duration: Duration) -> Result<Latencies> {
    let number = u32::try_from(desktops.len())?;
    let began = Instant::now();
    let mut latencies = std::thread::scope(|scope| -> Result<Vec<Duration>> {
        let players: Vec<_> = (0..number)
            .zip(desktops)
            .map(|(index, desktop)| {
                let first = began + PAUSE * index / number;
                scope.spawn(move || play_one(desktop, first, began + duration))
            })
            .collect();
        let mut all = Vec::new();
        for player in players {
            let player = player.join().map_err(|_| anyhow!("a player panicked"))?;
            all.extend(player?);
        }
        Ok(all)
    })?;
    ensure!(!latencies.is_empty(), "nobody played");
    latencies.sort_unstable();
    Ok(Latencies(latencies))
}

fn play_one(desktop: &mut WebSocket, first: Instant, until: Instant) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut due = first;
    while due < until {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let number = u64::try_from(latencies.len())?;
        let message = number.to_le_bytes().repeat(MESSAGE_BYTES / 8);
        desktop.send(&message)?;
        let echo = desktop
            .receive_exactly(MESSAGE_BYTES)
            .with_context(|| format!("echo {number} at {}", desktop.source))?;
        ensure!(echo == message, "another echo");
        latencies.push(due.elapsed());
        due += PAUSE;
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_hundred_may_be_late() {
        let check = |number: u64, late: u64, p99: u64| {
            let times = (0..number).map(|index| if index < number - late { 1 } else { 9 });
            let latencies = Latencies(times.map(Duration::from_millis).collect());
            assert_eq!(
                latencies.p99(),
                Duration::from_millis(p99),
                "{number} {late}"
            );
        };
        check(1, 0, 1);
        check(1, 1, 9);
        check(100, 1, 1);
        check(100, 2, 9);
        check(2000, 20, 1);
        check(2000, 21, 9);
    }
}
