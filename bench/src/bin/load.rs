//! The process of the load's clients or of its server; the bench starts both.

fn main() -> anyhow::Result<()> {
    let role = std::env::args().nth(1).unwrap_or_default();
    postern_bench::load::child::main(&role)
}
