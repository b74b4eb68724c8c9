//! ioscope's probes.
fn main() {}
