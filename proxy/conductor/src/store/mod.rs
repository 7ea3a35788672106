//! What the nodes share: sealed values under a prefix, in etcd or in a static file.
