//! The object with the programs, as `cargo xtask ebpf` built it: embedded, so that nothing needs a BPF toolchain.

/// The object, aligned as its parser wants it.
pub fn bytes() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../object/postern.bpf.o"
    ))
}
