//! Pollers that several threads share, and for how long nobody waits on one: by itself no thread of them need be in
//! a stall, and yet no event is taken.

use std::collections::BTreeMap;

use ioscope_common::{Loop, PollerKind};

/// A poller of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PollerId {
    /// The process, in ioscope's pid namespace.
    pub pid: u32,
    /// What it is.
    pub kind: PollerKind,
    /// Its file descriptor.
    pub fd: i32,
}

impl PollerId {
    /// The one that a loop waits on, or waited on last, if it can be shared.
    pub(super) fn of(pid: u32, machine: &Loop) -> Option<Self> {
        let poller = machine.pollers.get(usize::from(machine.poller))?;
        let kind = u8::try_from(poller.kind).ok().and_then(PollerKind::from_number)?;
        matches!(kind, PollerKind::Epoll | PollerKind::Ring).then_some(Self { pid, kind, fd: poller.fd })
    }
}

/// For how long nobody waits on a poller, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpolled {
    /// Now; 0 while somebody waits.
    pub now_ns: u64,
    /// The longest that was seen.
    pub longest_ns: u64,
    /// Since when, where nobody does, and how many wait calls had begun by then.
    since: Option<(u64, u64)>,
}

impl Unpolled {
    /// So long now, and so long at most.
    #[cfg(test)]
    pub(super) const fn seen(now_ns: u64, longest_ns: u64) -> Self {
        Self { now_ns, longest_ns, since: None }
    }
}

/// What a thread that shares a poller does about it.
struct Use {
    waits: bool,
    entered_at: u64,
    returned_at: u64,
    entries: u64,
}

/// All shared pollers.
#[derive(Clone, Debug)]
pub(super) struct SharedPollers {
    pollers: BTreeMap<PollerId, Unpolled>,
}

impl SharedPollers {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self { pollers: BTreeMap::new() }
    }

    /// Takes in what the loops that share a poller, and live, are at: each with its process.
    pub(super) fn update<'a>(&mut self, loops: impl Iterator<Item = (u32, &'a Loop)>, now: u64) {
        let mut uses: BTreeMap<PollerId, Vec<Use>> = BTreeMap::new();
        for (pid, machine) in loops {
            if let Some(id) = PollerId::of(pid, machine) {
                let waits = machine.in_wait != 0 || machine.restarting != 0;
                uses.entry(id).or_default().push(Use {
                    waits,
                    entries: machine.counters.returns.iter().sum::<u64>() + u64::from(waits),
                    entered_at: machine.entered_at,
                    returned_at: machine.returned_at,
                });
            }
        }
        self.pollers.retain(|id, _| uses.contains_key(id));
        for (id, uses) in uses {
            let known = self.pollers.entry(id).or_default();
            let returned = uses.iter().map(|user| user.returned_at).max().unwrap_or(0);
            let entries: u64 = uses.iter().map(|user| user.entries).sum();
            // Somebody has waited since. How long it took until then is known if each that did has done so once: of
            // several wait calls only the last one's time is.
            if let Some((since, before)) = known.since {
                let entered = uses.iter().map(|user| user.entered_at).filter(|at| *at > since);
                if let Some(first) = entered.clone().min() {
                    if entries.checked_sub(before) == u64::try_from(entered.count()).ok() {
                        known.longest_ns = known.longest_ns.max(first - since);
                    }
                    known.since = None;
                }
            }
            known.now_ns = 0;
            if returned != 0 && !uses.iter().any(|user| user.waits) {
                known.since = Some((returned, entries));
                known.now_ns = now.saturating_sub(returned);
                known.longest_ns = known.longest_ns.max(known.now_ns);
            }
        }
    }

    /// What is known of a poller; `None` if it is not shared.
    pub(super) fn get(&self, id: PollerId) -> Option<Unpolled> {
        self.pollers.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use ioscope_common::{Transition, WaitArgs, WaitCall};

    use super::*;

    const ARGS: WaitArgs = WaitArgs {
        call: WaitCall::EpollPwait,
        poller: PollerKind::Epoll,
        fd: 5,
        max_events: 8,
        timeout: -1,
        ring: 0,
        taken: 0,
    };

    fn machine() -> Box<Loop> {
        let mut machine = Box::new(Loop::ZERO);
        machine.begin(0, 1_000);
        machine
    }

    fn enter(machine: &mut Loop, at: u64) {
        machine.step(Transition::Enter { args: ARGS, stall_threshold: u64::MAX }, at);
    }

    fn leave(machine: &mut Loop, at: u64) {
        machine.step(Transition::Return { result: 1, posted: 0, ready_at: 0 }, at);
    }

    #[test]
    fn a_poller_is_unpolled_from_the_last_return_to_the_first_entry() {
        let (mut one, mut two) = (machine(), machine());
        let mut pollers = SharedPollers::new();
        let id = PollerId { pid: 7, kind: PollerKind::Epoll, fd: 5 };
        let look = |pollers: &mut SharedPollers, one: &Loop, two: &Loop, now| {
            pollers.update([(7, one), (7, two)].into_iter(), now);
            let known = pollers.get(id).unwrap();
            (known.now_ns, known.longest_ns)
        };
        enter(&mut one, 1_100);
        enter(&mut two, 1_200);
        assert_eq!(look(&mut pollers, &one, &two, 1_300), (0, 0));
        leave(&mut one, 1_400);
        assert_eq!(look(&mut pollers, &one, &two, 1_500), (0, 0));
        leave(&mut two, 2_000);
        assert_eq!(look(&mut pollers, &one, &two, 2_500), (500, 500));
        // It went on for a while after it was looked at.
        enter(&mut two, 2_700);
        assert_eq!(look(&mut pollers, &one, &two, 3_000), (0, 700));
        leave(&mut two, 3_100);
        assert_eq!(look(&mut pollers, &one, &two, 3_200), (100, 700));
        // Both come and go before anybody looks again: when the first of them came is not known.
        for at in [3_300, 4_300] {
            enter(&mut one, at);
            leave(&mut one, at + 50);
        }
        enter(&mut two, 4_400);
        assert_eq!(look(&mut pollers, &one, &two, 4_500), (0, 700));
        leave(&mut two, 4_600);
        assert_eq!(look(&mut pollers, &one, &two, 4_700), (100, 700));
        // Each comes once: the first counts.
        enter(&mut one, 5_500);
        enter(&mut two, 5_600);
        assert_eq!(look(&mut pollers, &one, &two, 5_700), (0, 900));
        // Nobody shares it any more.
        pollers.update(std::iter::empty(), 4_000);
        assert_eq!(pollers.get(id), None);
    }
}
