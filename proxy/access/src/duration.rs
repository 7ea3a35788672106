//! Durations as people write them: `15m`, `8h`, `1d`.
