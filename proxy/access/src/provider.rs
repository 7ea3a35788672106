//! jsonwebtoken's crypto provider on ring.
