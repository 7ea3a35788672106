//! Behaviour over a real etcd.
