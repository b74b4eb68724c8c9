//! A client whose work is known beforehand: one thread, one request in flight, the connections in turn.
//! A server with one loop makes one iteration a request then, and one a connection to accept it, give or
//! take what it does of its own accord.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// A server that does not answer within this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The test programs' own: a line comes back as it is.
    Lines,
    /// HTTP/1.1 with the connection kept alive; the body is `pong`.
    Http,
    /// Redis's.
    Redis,
    /// memcached's.
    Memcached,
}

impl Protocol {
    fn request(self) -> &'static [u8] {
        match self {
            Self::Lines => b"a request of exactly sixty-four bytes, its line feed included..\n",
            Self::Http => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            Self::Redis => b"PING\r\n",
            Self::Memcached => b"version\r\n",
        }
    }

    /// How a reply ends, and nothing before its end does.
    fn end_of_reply(self) -> &'static [u8] {
        match self {
            Self::Lines => b"\n",
            Self::Http => b"pong\n",
            Self::Redis | Self::Memcached => b"\r\n",
        }
    }
}

/// An amount of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    /// In all, not each.
    pub(crate) requests: usize,
}

/// The client's side of the connections.
#[derive(Debug)]
pub(crate) struct Client {
    load: Load,
    connections: Vec<TcpStream>,
}

impl Client {
    /// Opens all connections.
    pub(crate) fn connect(load: Load, port: u16) -> io::Result<Self> {
        let open = |_| {
            let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            connection.set_nodelay(true)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            Ok(connection)
        };
        let connections = (0..load.connections).map(open).collect::<io::Result<_>>()?;
        Ok(Self { load, connections })
    }

    /// Sends every request and waits for its reply before the next.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let Load { protocol, connections, requests } = self.load;
        for number in 0..requests {
            let connection = &mut self.connections[number % connections];
            connection.write_all(protocol.request())?;
            read_reply(protocol, connection)?;
        }
        Ok(())
    }

    /// The same, but the connections have their requests in flight at the same time, one each.
    pub(crate) fn run_at_once(&mut self) -> io::Result<()> {
        let Load { protocol, connections, requests } = self.load;
        for _ in 0..requests / connections {
            for connection in &mut self.connections {
                connection.write_all(protocol.request())?;
            }
            for connection in &mut self.connections {
                read_reply(protocol, connection)?;
            }
        }
        Ok(())
    }
}

fn read_reply(protocol: Protocol, connection: &mut TcpStream) -> io::Result<()> {
    let mut reply = Vec::new();
    while !reply.ends_with(protocol.end_of_reply()) {
        let mut buffer = [0; 4096];
        match connection.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => reply.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(())
}
