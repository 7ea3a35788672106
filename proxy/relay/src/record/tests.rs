//! What the record layer promises.
