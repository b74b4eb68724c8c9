//! The `ioscope` command.

fn main() -> Result<(), ioscope::demo::DemoError> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("__worker") => ioscope::demo::worker_main(arguments),
        _ => Ok(()),
    }
}
