//! What the argument of a system call stands for that a thread sleeps in: a descriptor's file or socket, a
//! futex's address. Read from /proc while it sleeps; what cannot be told is left out.

use std::{
    fs::{self, File},
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::{printable, watch::is_special};
use crate::probe::{arch::Arch, syscalls};

/// System calls whose first argument is a descriptor, of those that sleep.
const ON_DESCRIPTOR: &[&str] = &[
    "read",
    "write",
    "pread64",
    "pwrite64",
    "readv",
    "writev",
    "preadv",
    "pwritev",
    "preadv2",
    "pwritev2",
    "fsync",
    "fdatasync",
    "syncfs",
    "sync_file_range",
    "ftruncate",
    "fallocate",
    "flock",
    "fcntl",
    "ioctl",
    "close",
    "getdents",
    "getdents64",
    "lseek",
    "fstat",
    "sendfile",
    "splice",
    "tee",
    "vmsplice",
    "copy_file_range",
    "connect",
    "accept",
    "accept4",
    "recvfrom",
    "recvmsg",
    "recvmmsg",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "shutdown",
    "epoll_ctl",
    "fchmod",
    "fchown",
    "fsetxattr",
    "readahead",
    "fadvise64",
];

/// System calls whose first argument is a futex's address.
const ON_FUTEX: &[&str] = &["futex", "futex_wait"];

/// A table of sockets longer than this is not read to its end.
const MOST_OF_A_TABLE: u64 = 8 << 20;

/// What the first argument of a system call of this process stands for.
pub(super) fn resolve(pid: u32, syscall: i32, argument: u64) -> Option<Arc<str>> {
    if is_special(syscall) {
        return None;
    }
    let name = syscalls::name(Arch::host()?, u32::try_from(syscall).ok()?)?;
    if ON_FUTEX.contains(&name) {
        return Some(format!("futex {argument:#x}").into());
    }
    if !ON_DESCRIPTOR.contains(&name) {
        return None;
    }
    // A descriptor is an `int`, in a register of 64 bits.
    let descriptor = i32::try_from(argument & 0xffff_ffff).ok()?;
    let target = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok()?;
    let target = printable(&target.to_string_lossy());
    let socket = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
    let described = socket.and_then(|inode| describe_socket(pid, inode));
    Some(described.unwrap_or_else(|| format!("fd {descriptor}, {target}")).into())
}

/// A socket and its peer, from the tables of the process's own network namespace.
fn describe_socket(pid: u32, inode: &str) -> Option<String> {
    for protocol in ["tcp", "tcp6", "udp", "udp6"] {
        let table = read_some(&format!("/proc/{pid}/net/{protocol}"));
        for line in table.lines().skip(1) {
            let mut fields = line.split_ascii_whitespace();
            let (local, peer) = (fields.nth(1), fields.next());
            if fields.nth(6) == Some(inode) {
                let (local, peer) = (address(local?)?, address(peer?)?);
                let protocol = protocol.trim_end_matches('6');
                return Some(if peer.port() == 0 {
                    format!("{protocol} {local}")
                } else {
                    format!("{protocol} {local} to {peer}")
                });
            }
        }
    }
    // Num RefCount Protocol Flags Type St Inode Path
    let table = read_some(&format!("/proc/{pid}/net/unix"));
    let line = table.lines().skip(1).find(|line| line.split_ascii_whitespace().nth(6) == Some(inode))?;
    let path = line.split_ascii_whitespace().nth(7).unwrap_or("without a name");
    Some(format!("unix socket {}", printable(path)))
}

fn read_some(path: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(path) {
        // What could be read is as good as it gets.
        let _ = file.take(MOST_OF_A_TABLE).read_to_string(&mut text);
    }
    text
}

/// `0100007F:1F90`, as `/proc/net/tcp` has it: 32-bit words as this machine stores them, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for word in ip.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsRawFd as _,
    };

    use super::*;

    fn number(name: &str) -> i32 {
        let number = syscalls::number(Arch::host().unwrap(), name).unwrap();
        i32::try_from(number).unwrap()
    }

    #[test]
    fn descriptors_are_files_and_sockets_with_their_peers() {
        let pid = std::process::id();
        let file = tempfile::NamedTempFile::new().unwrap();
        let descriptor = u64::try_from(file.as_raw_fd()).unwrap();
        let found = resolve(pid, number("fsync"), descriptor).unwrap();
        assert_eq!(&*found, format!("fd {descriptor}, {}", file.path().display()));
        // What a register holds above an int is none of it.
        assert_eq!(resolve(pid, number("fsync"), descriptor | 7 << 32), Some(found));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let descriptor = u64::try_from(stream.as_raw_fd()).unwrap();
        let found = resolve(pid, number("read"), descriptor).unwrap();
        assert_eq!(&*found, format!("tcp {local} to {peer}"));
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let descriptor = u64::try_from(one.as_raw_fd()).unwrap();
        assert_eq!(
            resolve(pid, number("recvfrom"), descriptor).as_deref(),
            Some("unix socket without a name")
        );
    }

    #[test]
    fn a_futex_is_an_address_and_what_cannot_be_told_is_left_out() {
        let pid = std::process::id();
        assert_eq!(resolve(pid, number("futex"), 0x7f00_1234).as_deref(), Some("futex 0x7f001234"));
        for (syscall, argument) in [
            (number("clock_nanosleep"), 1),
            (number("read"), 0xffff_fff0),
            (ioscope_common::NO_SYSCALL, 3),
            (ioscope_common::STOPPED, 3),
            (99_999, 3),
        ] {
            assert_eq!(resolve(pid, syscall, argument), None);
        }
    }
}
