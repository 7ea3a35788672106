//! A process full of browsers or of targets, which the test that started it commands.

fn main() -> anyhow::Result<()> {
    postern_tests::crowd::run(&std::env::args().skip(1).collect::<Vec<_>>())
}
