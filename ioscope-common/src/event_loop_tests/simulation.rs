//! A thread that does by chance what threads can do, in an order that is possible.

use crate::{
    NO_SYSCALL, PollerKind, READY_UNKNOWN, READY_UNMEASURED, STOPPED, TIMEOUT_NEVER, TIMEOUT_UNKNOWN,
    Transition, WaitArgs, WaitCall, Wake,
};

/// From this loop duration on, it is a stall.
pub(super) const STALL: u64 = 500;

/// Something that happens to the thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happening {
    pub(super) at: u64,
    pub(super) transition: Transition,
    /// Of a return from a wait on a ring: how many completions the loop finds.
    pub(super) found: u64,
}

/// A life.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub(super) born: u64,
    /// The wait call that it was found asleep in, if it was.
    pub(super) found_asleep: Option<WaitArgs>,
    pub(super) happenings: Vec<Happening>,
}

/// What chance decides of one happening.
pub(super) type Dice = (u16, u16, u16, u16);

/// A ring, and what was posted to it.
#[derive(Clone, Copy)]
struct Ring {
    address: u64,
    posted: u64,
    taken: u64,
    /// Posted when the loop last returned from it.
    returned: Option<u64>,
    /// Posted when the loop left it with a restart code.
    left: u64,
}

impl Ring {
    /// The loop has returned, and takes all that there is.
    const fn hand_over(&mut self, posted: u64) {
        self.returned = Some(posted);
        self.taken = posted;
    }
}

/// Counts of completions that are about to pass 2^32.
const NEARLY_FULL: u64 = (1 << 32) - 40;
/// A ring for each descriptor, and one for each registered index.
const RINGS: usize = 12;

struct Thread {
    now: u64,
    on_cpu: bool,
    asleep: bool,
    /// When it left its CPU.
    left: u64,
    /// When it got it, or entered a wait call.
    on_cpu_since: u64,
    wait: Option<WaitArgs>,
    /// A wait call that left with a restart code.
    restarting: Option<WaitArgs>,
    wake: Wake,
    rings: [Ring; RINGS],
    rings_made: u64,
    happenings: Vec<Happening>,
}

/// Tells the story of these dice.
pub(super) fn tell(found_asleep: bool, dice: &[Dice]) -> Story {
    const BORN: u64 = 1_000;
    let mut thread = Thread {
        now: BORN,
        on_cpu: true,
        asleep: false,
        left: BORN,
        on_cpu_since: BORN,
        wait: None,
        restarting: None,
        wake: Wake::default(),
        rings: std::array::from_fn(|at| Ring {
            address: 1 + at as u64,
            posted: NEARLY_FULL,
            taken: NEARLY_FULL,
            returned: None,
            left: 0,
        }),
        rings_made: RINGS as u64,
        happenings: Vec::new(),
    };
    let mut asleep_in = None;
    if let (true, Some(&(_, a, b, c))) = (found_asleep, dice.first()) {
        let args = thread.arguments(a, b, c);
        thread.wait = Some(args);
        (thread.on_cpu, thread.asleep, thread.on_cpu_since) = (false, true, 0);
        asleep_in = Some(args);
    }
    for &(choice, a, b, c) in dice {
        thread.now += u64::from(c % 97) * u64::from(c % 5);
        if !thread.act(choice, a, b, c) {
            break;
        }
    }
    Story { born: BORN, found_asleep: asleep_in, happenings: thread.happenings }
}

impl Thread {
    fn happens(&mut self, transition: Transition) {
        self.happenings.push(Happening { at: self.now, transition, found: 0 });
    }

    /// One thing, of those that are possible now; `false` when it was the last.
    fn act(&mut self, choice: u16, a: u16, b: u16, c: u16) -> bool {
        if !self.on_cpu {
            self.get_cpu(a, b);
            return true;
        }
        match (self.wait, self.restarting, choice % 16) {
            (_, _, 0) if choice.is_multiple_of(3) => {
                self.happens(Transition::End);
                return false;
            }
            (_, _, 0..=2) => self.leave_cpu(false, a),
            (_, _, 3..=6) => self.leave_cpu(true, a),
            (Some(args), ..) => self.return_from(args, choice, a),
            // The kernel goes on with the call, or the program does without it.
            (None, Some(args), 7..=9) => {
                self.happens(Transition::Resume);
                self.go_on(args);
            }
            (None, Some(args), 10 | 11) => {
                self.happens(Transition::Enter { args, stall_threshold: STALL });
                self.go_on(args);
            }
            (None, Some(args), 12..=14) => {
                self.happens(Transition::HandlerDone);
                self.is_interrupted(args);
            }
            (None, None, 7) => self.happens(Transition::Submit),
            (None, None, 8) => {
                self.happens(if a.is_multiple_of(2) { Transition::Resume } else { Transition::HandlerDone });
            }
            (None, before, _) => {
                let args = self.arguments(a, b, c);
                // The same call again would be the kernel's doing.
                if before.is_none_or(|before| before.call != args.call || before.fd != args.fd) {
                    if let Some(before) = before {
                        self.is_interrupted(before);
                    }
                    self.enter(args);
                }
            }
        }
        true
    }

    fn go_on(&mut self, args: WaitArgs) {
        self.restarting = None;
        self.wait = Some(args);
        self.on_cpu_since = self.now;
    }

    /// The call that left with a restart code came back to the program.
    fn is_interrupted(&mut self, args: WaitArgs) {
        self.restarting = None;
        let mine = self.rings.iter_mut().find(|ring| args.ring != 0 && ring.address == args.ring);
        if let Some(ring) = mine {
            ring.hand_over(ring.left);
        }
    }

    fn enter(&mut self, args: WaitArgs) {
        self.happens(Transition::Enter { args, stall_threshold: STALL });
        self.wait = Some(args);
        self.on_cpu_since = self.now;
    }

    fn arguments(&mut self, a: u16, b: u16, c: u16) -> WaitArgs {
        let call = WaitCall::ALL[usize::from(a) % WaitCall::COUNT];
        let timeout = match c % 6 {
            0 => 0,
            1 => TIMEOUT_NEVER,
            2 => TIMEOUT_UNKNOWN,
            _ => i64::from(c % 300) + 1,
        };
        let (poller, fd) = match call {
            WaitCall::EpollWait | WaitCall::EpollPwait | WaitCall::EpollPwait2 => {
                (PollerKind::Epoll, i32::from(b % 6))
            }
            WaitCall::IoUringEnter if b.is_multiple_of(4) => (PollerKind::RegisteredRing, i32::from(b % 6)),
            WaitCall::IoUringEnter => (PollerKind::Ring, i32::from(b % 6)),
            WaitCall::IoGetevents | WaitCall::IoPgetevents => (PollerKind::Aio, -1),
            _ => (PollerKind::Set, -1),
        };
        let mut args =
            WaitArgs { call, poller, fd, max_events: u32::from(b % 4), timeout, ring: 0, taken: 0 };
        if call == WaitCall::IoUringEnter && !c.is_multiple_of(11) {
            let at = usize::from(b % 6) + if poller == PollerKind::Ring { 0 } else { RINGS / 2 };
            if c.is_multiple_of(13) {
                // Another ring under the same number.
                self.rings_made += 1;
                let taken = NEARLY_FULL + u64::from(c % 40);
                self.rings[at] =
                    Ring { address: self.rings_made, posted: taken + 3, taken, returned: None, left: 0 };
            }
            args.ring = self.rings[at].address;
            args.taken = wrapped(self.rings[at].taken);
        }
        args
    }

    fn return_from(&mut self, args: WaitArgs, choice: u16, a: u16) {
        let ring = args.call == WaitCall::IoUringEnter;
        let result = match (choice % 16, ring) {
            (7 | 8, _) => [-512, -513, -514, -516][usize::from(a % 4)],
            (9, _) => -i64::from([4, 9, 14, 22, 11, 95, 12][usize::from(a % 7)]),
            (10, true) => -62,
            (10 | 11, false) => 0,
            _ => i64::from(a % 5),
        };
        let (mut posted, mut found) = (0, 0);
        let mine = self.rings.iter_mut().find(|ring| args.ring != 0 && ring.address == args.ring);
        if let Some(ring) = mine {
            ring.posted += u64::from(a % 7);
            posted = wrapped(ring.posted);
            found = ring.posted - ring.returned.unwrap_or(ring.taken);
            if result > -512 {
                ring.hand_over(ring.posted);
            } else {
                ring.left = ring.posted;
            }
        }
        let ready_at = match choice % 7 {
            0 => READY_UNMEASURED,
            1 => READY_UNKNOWN,
            _ => self.now.saturating_sub(u64::from(a % 900)),
        };
        let transition = Transition::Return { result, posted, ready_at };
        self.happenings.push(Happening { at: self.now, transition, found });
        self.wait = None;
        self.restarting = (result <= -512).then_some(args);
    }

    fn leave_cpu(&mut self, asleep: bool, a: u16) {
        let outside = asleep && self.wait.is_none();
        let futex = outside && a.is_multiple_of(3);
        let syscall = match a % 14 {
            _ if !outside => NO_SYSCALL,
            _ if futex => 202,
            0 => STOPPED,
            1 => NO_SYSCALL,
            number => i32::from(number),
        };
        let throttled = !asleep && a.is_multiple_of(4);
        self.happens(Transition::SwitchOut { asleep, syscall, futex, argument: u64::from(a), throttled });
        (self.on_cpu, self.asleep, self.left) = (false, asleep, self.now);
    }

    fn get_cpu(&mut self, a: u16, b: u16) {
        if self.asleep && !a.is_multiple_of(8) {
            // After it was last seen on a CPU; before it slept, if the waker was quicker than the sleeper.
            let earliest = if a % 8 == 1 { self.on_cpu_since + 1 } else { self.left };
            let at = earliest + u64::from(b) % (self.now.saturating_sub(earliest) + 1);
            if at > self.on_cpu_since {
                self.wake = Wake { at, waker: u32::from(b), context: u32::from(b % 3) + 1 };
            }
        }
        self.happens(Transition::SwitchIn { wake: self.wake, shared: b.is_multiple_of(2) });
        (self.on_cpu, self.on_cpu_since) = (true, self.now);
    }
}

/// As the kernel counts: modulo 2^32.
#[expect(clippy::cast_possible_truncation, reason = "that is the point")]
const fn wrapped(count: u64) -> u32 {
    count as u32
}
