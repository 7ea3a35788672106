//! Makes Cargo link anew when the linker changed.

fn main() {
    println!("cargo:rerun-if-changed=link.sh");
}
