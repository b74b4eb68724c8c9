//! The `ioscope` command.
fn main() {}
