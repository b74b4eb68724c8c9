//! From a file that becomes ready to the epoll instance that watches it.

use super::Reader;

/// Offsets on the way from an entry in the list of those who wait for a file to the epoll instance that has put it
/// there (`fs/eventpoll.c`), and from a socket to that list (`include/net/sock.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadinessLayout {
    /// `eppoll_entry.wait`: the entry, `struct wait_queue_entry`.
    pub entry_wait: u32,
    /// `eppoll_entry.wait.entry`: its links in the list.
    pub entry_link: u32,
    /// `eppoll_entry.base`: a pointer to `struct epitem`.
    pub entry_base: u32,
    /// `epitem.ep`: a pointer to `struct eventpoll`.
    pub item_ep: u32,
    /// `epitem.event.events`: the events that are waited for, 4 bytes.
    pub item_events: u32,
    /// `sock.sk_wq`: a pointer to `struct socket_wq`.
    pub sock_wq: u32,
    /// `socket_wq.wait.head`: the list, of which `next` comes first.
    pub socket_wq_head: u32,
}

impl ReadinessLayout {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let feature = "ready delay of events on epoll";
        Some(Self {
            entry_wait: reader.want("eppoll_entry", "wait", feature)?,
            entry_link: reader.want("eppoll_entry", "wait.entry", feature)?,
            entry_base: reader.want("eppoll_entry", "base", feature)?,
            item_ep: reader.want("epitem", "ep", feature)?,
            item_events: reader.want("epitem", "event.events", feature)?,
            sock_wq: reader.want("sock", "sk_wq", feature)?,
            socket_wq_head: reader.want("socket_wq", "wait.head", feature)?,
        })
    }
}
