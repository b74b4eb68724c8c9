//! The one thing that the guest has to ask of its kernel and that no safe library offers.
#![expect(
    unsafe_code,
    reason = "an ioctl on a network device has no safe wrapper in the libraries used here"
)]

use std::{io, mem::zeroed, net::UdpSocket, os::fd::AsRawFd as _};

/// Brings the loopback device up; `netdevice(7)`.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all bits zero is a valid request: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: the descriptor is open, and the request is as long as this ioctl expects.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
