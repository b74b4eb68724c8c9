//! A tokio program that idles for two seconds and, if asked to, blocks its runtime in a task meanwhile:
//! `tokio_blocking current|multi idle|block`. For tests of what ioscope says of it.

use std::time::Duration;

/// What a task must not do.
#[inline(never)]
fn blocking_in_a_task() {
    std::thread::sleep(Duration::from_millis(400));
    // Keeps the call above from becoming a jump, which would leave no frame of this function.
    std::hint::black_box(());
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let multi = arguments.next().as_deref() == Some("multi");
    let block = arguments.next().as_deref() == Some("block");
    let mut builder = if multi {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.worker_threads(3).enable_all().build()?;
    runtime.block_on(async {
        let tick = tokio::spawn(async move {
            for turn in 0..100 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if block && turn == 20 {
                    blocking_in_a_task();
                }
            }
        });
        tick.await.map_err(std::io::Error::other)
    })
}
