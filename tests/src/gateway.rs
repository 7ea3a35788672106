//! A gateway of its own for one test: configuration, process, audit records, metrics.
