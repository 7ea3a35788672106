//! What the browser gets: pages as typed templates, and the bundled client as embedded assets.
//!
//! Control serves both. Nothing here does I/O; every page escapes what it is given.
#![forbid(unsafe_code)]

mod assets;
mod pages;

pub use assets::{Asset, CACHE_CONTROL, Encoding, asset};
pub use pages::{Action, DesktopPage, LauncherPage, LoginPage, MessagePage, Tile};

/// The `Content-Security-Policy` of every page and asset. WASM needs `wasm-unsafe-eval`; the
/// RDP component sets inline styles on its canvas and shows cursors as `data:` images.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
    script-src 'self' 'wasm-unsafe-eval'; \
    connect-src 'self'; \
    style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; \
    font-src 'self'; \
    form-action 'self'; \
    base-uri 'none'; \
    frame-ancestors 'none'";
