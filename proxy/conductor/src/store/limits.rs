//! Limits of what the store may take: memory, time, number.

use std::time::Duration;

use postern_steering::MEMBERS_MAX;

/// Longest key below the prefix.
pub const KEY_BYTES_MAX: usize = 64;

/// Longest value, its seal included; etcd takes 1.5 MiB where it is not told otherwise.
pub const VALUE_BYTES_MAX: usize = (1 << 20) + (1 << 18);

/// Longest message that etcd may send: it is refused by its head, before its body is read.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Most keys or events of one message: each costs more memory than it has bytes.
pub const MESSAGE_ELEMENTS_MAX: usize = 65_536;

/// What etcd may send ahead of our reading, on one stream and on a connection.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// Keys that are asked for at once.
pub const PAGE_KEYS_MAX: usize = 1024;

/// Keys that may lie under the prefix, good and bad. With more, nothing is known for sure, and the
/// store counts as lost: to act on a part would be to take members for gone.
pub const KEYS_MAX: usize = 65_536;

/// Bytes of all good values together.
pub const VALUES_BYTES_MAX: usize = 64 << 20;

/// Events that may wait for the one who acts on them; then etcd has to wait.
pub const EVENTS_WAITING_MAX: usize = 16;

/// Operations of one transaction; etcd takes 128.
pub const OPERATIONS_MAX: usize = 64;

/// For TCP and TLS to one endpoint.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// For the answer to one request.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// For one request at all endpoints together.
pub const REQUEST_PATIENCE: Duration = Duration::from_secs(4);

/// For reading everything under the prefix.
pub const READ_PATIENCE: Duration = Duration::from_secs(30);

/// How often a watched etcd is asked for a sign of life, and how long it may stay silent.
pub const PROGRESS_PERIOD: Duration = Duration::from_millis(500);
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Between two attempts to watch: the first, doubled up to the last.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often a file of nodes is looked at, and how long it may be.
pub const FILE_PERIOD: Duration = Duration::from_secs(1);
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Certificates and keys.
pub const PEM_BYTES_MAX: u64 = 1 << 20;

const _: () = assert!(
    VALUE_BYTES_MAX + (1 << 16) < MESSAGE_BYTES_MAX,
    "a good value fits into a message"
);
const _: () = assert!(
    4 * MEMBERS_MAX + 2 <= KEYS_MAX,
    "every member's four keys have room"
);
const _: () = assert!(
    PAGE_KEYS_MAX <= MESSAGE_ELEMENTS_MAX,
    "a page is one message"
);
const _: () = assert!(
    PROGRESS_PERIOD.as_millis() * 2 < SILENCE_MAX.as_millis(),
    "one sign of life may get lost"
);
