//! Echo server on tokio, for the tests and for trying ioscope out.
//!
//! Usage: `tokio_echo PORT REQUESTS [current-thread|multi-thread]`. Prints "ready" once it listens on
//! 127.0.0.1:PORT, echoes lines, and exits after REQUESTS of them. `IOSCOPE_THREAD_NAME` renames the workers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Notify;

/// How many requests are left, and who is told of the last.
struct Left {
    requests: AtomicUsize,
    done: Notify,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().context("PORT is missing")?.parse()?;
    let requests: usize = arguments.next().context("REQUESTS is missing")?.parse()?;
    let mut builder = match arguments.next().as_deref() {
        None | Some("multi-thread") => Builder::new_multi_thread(),
        Some("current-thread") => Builder::new_current_thread(),
        Some(other) => anyhow::bail!("no such runtime: {other}"),
    };
    if let Ok(name) = std::env::var("IOSCOPE_THREAD_NAME") {
        builder.thread_name(name);
    }
    let left = Arc::new(Left { requests: AtomicUsize::new(requests), done: Notify::new() });
    Ok(builder.enable_io().build()?.block_on(serve(port, left))?)
}

async fn serve(port: u16, left: Arc<Left>) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("ready");
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (connection, _) = accepted?;
                tokio::spawn(echo(connection, Arc::clone(&left)));
            }
            () = left.done.notified() => return Ok(()),
        }
    }
}

async fn echo(mut connection: TcpStream, left: Arc<Left>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = connection.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        connection.write_all(&buffer[..count]).await?;
        let lines = memchr::memchr_iter(b'\n', &buffer[..count]).count();
        let before = left.requests.fetch_sub(lines, Ordering::Relaxed);
        if before <= lines {
            left.done.notify_one();
        }
    }
}
