//! Every command that a maintainer of ioscope runs.
fn main() {}
