//! A server that looks like RDP up to its TLS handshake, and misbehaves on request.
