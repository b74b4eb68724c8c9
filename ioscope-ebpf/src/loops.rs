//! From a thread to its loop, and the loop's steps.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output};
use ioscope_common::{
    Block, BlockRecord, Control, DIRECTORY_BLOCK, Iteration, LoopSlot, PollerKey, PollerKind, PollerUse,
    Step, Transition, UserRegisters, WaitArgs, WaitCall, Wake, kind, seen, status,
};

use crate::{
    diagnostics,
    kernel::{Task, process_numbers, thread_numbers},
    maps::{CONTROL, DIRECTORY, FREE, LOOPS, POLLERS, RUNNING, STREAM, count_drop},
    ready, stalls,
    syscalls::Registers,
};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: always allowed.
    unsafe { bpf_ktime_get_ns() }
}

/// A thread's loop.
#[derive(Clone, Copy)]
pub(crate) struct LoopRef {
    pub(crate) entry: *mut LoopSlot,
    slot: u32,
}

/// A field of a loop's entry that another CPU or user space may write.
macro_rules! entry_field {
    ($reference:expr, $($field:tt)+) => {{
        // SAFETY: the pointer is an array entry's, which lives as long as the map.
        unsafe { core::ptr::read_volatile(&raw const (*$reference.entry).$($field)+) }
    }};
}
pub(crate) use entry_field;

impl LoopRef {
    /// The loop of the thread with this number, if it has one.
    #[inline(always)]
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let entry = directory_entry(pid)?;
        // SAFETY: `directory_entry` points into an array entry.
        let place = unsafe { core::ptr::read_volatile(entry) };
        if place == 0 {
            return None;
        }
        Self::at(place)
    }

    /// The loop of the thread that runs on this CPU, as far as the context switch knows. Some kernels
    /// leave out the tracepoint of some switches, so the thread is asked by where its registers are.
    #[inline(always)]
    pub(crate) fn running(registers: Registers) -> Option<Self> {
        // SAFETY: this CPU's entry, which nothing else writes while the thread runs.
        let place = unsafe { core::ptr::read_volatile(RUNNING.get_ptr(0)?) };
        if place == 0 {
            return None;
        }
        Self::at(place).filter(|this| entry_field!(this, registers) == registers.address())
    }

    #[inline(always)]
    pub(crate) fn at(place: u32) -> Option<Self> {
        let slot = place - 1;
        Some(Self { entry: LOOPS.get_ptr_mut(slot)?, slot })
    }

    /// Notes whose loop runs on this CPU from here on.
    #[inline(always)]
    pub(crate) fn set_running(this: Option<Self>) {
        if let Some(running) = RUNNING.get_ptr_mut(0) {
            // SAFETY: this CPU's entry.
            unsafe { core::ptr::write_volatile(running, this.map_or(0, |this| this.slot + 1)) };
        }
    }

    /// A loop for a thread that has none: one that is about to enter its first wait call or, with that
    /// call's arguments, one that sleeps in it. `None` when there is no room, which is counted.
    #[inline(always)]
    pub(crate) fn create(
        task: Task,
        registers: Registers,
        asleep_in: Option<&WaitArgs>,
        now: u64,
    ) -> Option<Self> {
        let pid = task.pid();
        let Some(directory) = directory_entry(pid) else {
            count_drop!(out_of_directory);
            diagnostics::out_of_directory(pid);
            return None;
        };
        let Ok(Some(slot)) = FREE.pop() else {
            if asleep_in.is_some() {
                count_drop!(sleepers_full);
            } else {
                count_drop!(loops_full);
            }
            diagnostics::loops_full(pid);
            return None;
        };
        let entry = LOOPS.get_ptr_mut(slot)?;
        let process = process_numbers(task);
        let thread = thread_numbers(task);
        // SAFETY: both pointers are into array entries; the place was free, so that nothing else
        // writes there until the directory leads to it.
        unsafe {
            (*entry).tgid = process.ours;
            (*entry).tid = thread.ours;
            (*entry).inner_tgid = process.inner;
            (*entry).inner_tid = thread.inner;
            (*entry).kernel_tid = pid;
            (*entry).registers = registers.address();
            (*entry).stall_threshold = stall_threshold();
            (*entry).comm = task.comm();
            (*entry).seen = seen::NOTHING;
            (*entry).machine.begin(slot, now);
            if let Some(args) = asleep_in {
                (*entry).machine.found_asleep(args, stall_threshold());
            }
            compiler_fence(Ordering::SeqCst);
            // In this order: the collector takes a living entry back that the directory does not know.
            core::ptr::write_volatile(directory, slot + 1);
            compiler_fence(Ordering::SeqCst);
            core::ptr::write_volatile(&raw mut (*entry).status, status::LIVE);
        }
        Some(Self { entry, slot })
    }

    /// Whether another program of this hook was here before, in the same call: see [`seen`].
    #[inline(always)]
    pub(crate) fn has_seen(self, what: u32) -> bool {
        entry_field!(self, seen) == what
    }

    /// Tells the other programs of this hook that its work is done.
    #[inline(always)]
    pub(crate) fn set_seen(self, what: u32) {
        // SAFETY: the pointer is an array entry's, and the thread runs on this CPU.
        unsafe { core::ptr::write_volatile(&raw mut (*self.entry).seen, what) };
    }

    /// Whether the thread is inside a wait call.
    #[inline(always)]
    pub(crate) fn in_wait(self) -> bool {
        entry_field!(self, machine.in_wait) != 0
    }

    /// From which loop duration on its slice is a stall, in nanoseconds.
    #[inline(always)]
    pub(crate) fn stall_threshold(self) -> u64 {
        entry_field!(self, stall_threshold)
    }

    /// Whether the thread is inside a wait call that a signal has interrupted, and that may be gone on with.
    #[inline(always)]
    pub(crate) fn is_restarting(self) -> bool {
        entry_field!(self, machine.restarting) != 0
    }

    /// Its place in the map of loops.
    #[inline(always)]
    pub(crate) const fn slot(self) -> u32 {
        self.slot
    }

    /// Since when the thread serves.
    #[inline(always)]
    pub(crate) fn serving_since(self) -> u64 {
        entry_field!(self, machine.serving_since)
    }

    /// Whether the thread has served for so long.
    #[inline(always)]
    pub(crate) fn has_served_for(self, ns: u64, now: u64) -> bool {
        let since = self.serving_since();
        !self.in_wait()
            && entry_field!(self, machine.restarting) == 0
            && since != 0
            && now > since
            && now.wrapping_sub(since) >= ns
    }

    /// The sampling clock found the thread on a CPU. It interrupts the thread's own transitions, and writes
    /// nothing that they add to.
    #[inline(always)]
    pub(crate) fn count_sample(self, in_kernel: bool) {
        // SAFETY: the pointer is an array entry's, and the thread runs on this CPU.
        unsafe {
            let slice = &raw mut (*self.entry).machine.slice;
            let count =
                if in_kernel { &raw mut (*slice).kernel_samples } else { &raw mut (*slice).user_samples };
            core::ptr::write_volatile(count, core::ptr::read_volatile(count).wrapping_add(1));
        }
    }

    /// Whether the last sleep that was captured is so long ago; from now on, it is this one.
    #[inline(always)]
    pub(crate) fn may_capture(self, now: u64, apart: u64) -> bool {
        let may = now.wrapping_sub(entry_field!(self, captured_at)) >= apart;
        if may {
            // SAFETY: the pointer is an array entry's; only the thread's own switches write here.
            unsafe { core::ptr::write_volatile(&raw mut (*self.entry).captured_at, now) };
        }
        may
    }

    /// The thread is about to sleep outside a wait call: where it was, for whoever wants to know while it
    /// sleeps, and whether that has been captured.
    #[inline(always)]
    pub(crate) fn set_asleep_at(self, registers: UserRegisters, captured: bool) {
        // SAFETY: as above.
        unsafe {
            core::ptr::write_volatile(&raw mut (*self.entry).captured, u32::from(captured));
            core::ptr::write_volatile(&raw mut (*self.entry).asleep_at, registers);
        }
    }

    /// The last sleep outside a wait call that has ended.
    #[inline(always)]
    pub(crate) fn last_block(self) -> Block {
        entry_field!(self, machine.last_block)
    }

    #[inline(always)]
    fn wake(self) -> Wake {
        Wake {
            at: entry_field!(self, wake.at),
            waker: entry_field!(self, wake.waker),
            context: entry_field!(self, wake.context),
        }
    }

    #[inline(always)]
    fn is_shared(self) -> bool {
        entry_field!(self, shared) != 0
    }

    /// The thread was woken.
    #[inline(always)]
    pub(crate) fn woken(self, waker: u32, context: u32, now: u64) {
        // SAFETY: the pointer is an array entry's; the scheduler holds the woken thread's lock, so
        // that there is one waker at a time.
        unsafe {
            core::ptr::write_volatile(&raw mut (*self.entry).wake.waker, waker);
            core::ptr::write_volatile(&raw mut (*self.entry).wake.context, context);
            core::ptr::write_volatile(&raw mut (*self.entry).wake.at, now);
        }
    }

    /// The thread has submitted so many requests, in a call that does not wait.
    #[inline(always)]
    pub(crate) fn submitted(self, requests: u32) {
        self.begin_write().submitted(requests);
        self.end_write();
    }

    /// A transition of the thread's own making: moves it on, and streams what is complete.
    #[inline(always)]
    pub(crate) fn step(self, transition: Transition) -> Step {
        self.note_unseen(now);
        self.apply(transition, now())
    }

    /// The thread leaves its CPU. That it had one has been noted.
    #[inline(always)]
    pub(crate) fn switch_out(self, how: Transition, now: u64) {
        self.apply(how, now);
    }

    /// Before the thread is moved on: if that it got the CPU was missed, it gets it now.
    #[inline(always)]
    pub(crate) fn note_unseen(self, now: impl FnOnce() -> u64) {
        // SAFETY: the pointer is an array entry's.
        if unsafe { (*self.entry).machine.is_off_cpu() } {
            self.apply(Transition::SwitchInUnseen { wake: self.wake(), shared: self.is_shared() }, now());
        }
    }

    /// The thread gets a CPU.
    #[inline(always)]
    pub(crate) fn switch_in(self, now: u64) {
        // What a step needs that is written elsewhere than by the thread itself.
        self.apply(Transition::SwitchIn { wake: self.wake(), shared: self.is_shared() }, now);
    }

    #[inline(always)]
    fn apply(self, transition: Transition, now: u64) -> Step {
        let machine = self.begin_write();
        let step = self.forgotten(machine.step(transition, now));
        self.end_write();
        if step != Step::NOTHING {
            self.after(step);
        }
        step
    }

    /// The same, so that the verifier knows nothing of it: it would go through all that follows once for each value.
    #[inline(always)]
    fn forgotten(self, step: Step) -> Step {
        // SAFETY: the pointer is an array entry's.
        unsafe {
            let place = &raw mut (*self.entry).step;
            core::ptr::write_volatile(place, step.bits());
            Step::from_bits(core::ptr::read_volatile(place))
        }
    }

    /// A wait call's arguments, likewise: each call has other ones, and constants among them.
    #[inline(always)]
    pub(crate) fn forgotten_args(self, args: &WaitArgs) -> WaitArgs {
        macro_rules! through_memory {
            ($field:ident, $value:expr) => {{
                // SAFETY: the pointer is an array entry's, and what is read is what was written.
                unsafe {
                    let place = &raw mut (*self.entry).args.$field;
                    core::ptr::write_volatile(place, $value);
                    core::ptr::read_volatile(place)
                }
            }};
        }
        let call = through_memory!(call, args.call as u8);
        let poller = through_memory!(poller, args.poller as u8);
        WaitArgs {
            // SAFETY: what is read is what was written: one of the numbers that there are.
            call: unsafe { core::mem::transmute::<u8, WaitCall>(call) },
            // SAFETY: as above.
            poller: unsafe { core::mem::transmute::<u8, PollerKind>(poller) },
            fd: through_memory!(fd, args.fd),
            max_events: through_memory!(max_events, args.max_events),
            timeout: through_memory!(timeout, args.timeout),
            ring: through_memory!(ring, args.ring),
            taken: through_memory!(taken, args.taken),
        }
    }

    /// From here to [`Self::end_write`] a reader in user space knows that it must look again.
    #[inline(always)]
    fn begin_write<'a>(self) -> &'a mut ioscope_common::Loop {
        self.add_to_seq();
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the pointer is an array entry's. Only the thread's own transitions write here, and
        // they come one after the other.
        unsafe { &mut (*self.entry).machine }
    }

    #[inline(always)]
    pub(crate) fn end_write(self) {
        compiler_fence(Ordering::SeqCst);
        self.add_to_seq();
    }

    #[inline(always)]
    pub(crate) fn add_to_seq(self) {
        let seq = entry_field!(self, seq);
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(&raw mut (*self.entry).seq, seq.wrapping_add(1)) };
    }

    #[inline(always)]
    fn after(self, step: Step) {
        if step.has(Step::IMPOSSIBLE) {
            diagnostics::impossible_transition(entry_field!(self, tid));
        }
        if step.has(Step::BLOCK) && entry_field!(self, captured) != 0 {
            stalls::on_wake(self);
        }
        let Some(control) = CONTROL.get_ptr(0) else {
            return;
        };
        // SAFETY: the pointer is an array entry's.
        let stream = unsafe { core::ptr::read_volatile(&raw const (*control).stream) };
        if stream == Control::STREAM_OFF
            || (stream == Control::STREAM_MARKED && entry_field!(self, marked) == 0)
        {
            return;
        }
        if step.has(Step::ITERATION) {
            // SAFETY: the record lies in the loop's entry.
            emit(unsafe { (&raw const (*self.entry).machine.last).cast::<u8>() }, size_of::<Iteration>());
        } else if step.has(Step::BLOCK) {
            let record = BlockRecord {
                kind: kind::BLOCK,
                reserved: [0; 3],
                slot: self.slot,
                block: self.last_block(),
            };
            emit((&raw const record).cast(), size_of::<BlockRecord>());
        }
    }

    /// The thread has ended: its loop stays for the collector to read, and is out of reach.
    #[inline(always)]
    pub(crate) fn end(self, tgid: u32, pid: u32) {
        self.step(Transition::End);
        for at in 0..ioscope_common::POLLERS {
            // SAFETY: the pointer is an array entry's, and the index is in range.
            let PollerUse { kind, fd, address, .. } = unsafe { (*self.entry).machine.pollers[at] };
            ready::unwatch(address, self.slot, at);
            let key = PollerKey { tgid, kind, fd };
            if let Some(users) = POLLERS.get_ptr_mut(key) {
                // SAFETY: a map entry's pointer.
                unsafe {
                    if (*users).users <= 1 {
                        let _ = POLLERS.remove(key);
                    } else {
                        (*users).users -= 1;
                    }
                }
            }
        }
        if let Some(directory) = directory_entry(pid) {
            // SAFETY: both pointers are into array entries.
            unsafe {
                core::ptr::write_volatile(&raw mut (*self.entry).status, status::ENDED);
                compiler_fence(Ordering::SeqCst);
                core::ptr::write_volatile(directory, 0);
            }
        }
    }
}

/// Where the directory says which place a thread's loop has.
#[inline(always)]
fn directory_entry(pid: u32) -> Option<*mut u32> {
    let block = DIRECTORY.get_ptr_mut(pid / DIRECTORY_BLOCK as u32)?;
    // SAFETY: the index is within the block.
    Some(unsafe { (&raw mut (*block)).cast::<u32>().add(pid as usize % DIRECTORY_BLOCK) })
}

/// `BPF_RB_NO_WAKEUP`: the collector comes by itself. `include/uapi/linux/bpf.h`.
pub(crate) const NO_WAKEUP: u64 = 1;

#[inline(always)]
fn emit(record: *const u8, size: usize) {
    // SAFETY: the record is readable for its size: a map entry's or the stack's.
    let failed = unsafe {
        bpf_ringbuf_output(
            (&raw const STREAM).cast_mut().cast(),
            record.cast_mut().cast(),
            size as u64,
            NO_WAKEUP,
        )
    };
    if failed != 0 {
        count_drop!(ring_full);
    }
}

/// From which loop duration on a slice of a new loop is a stall, in nanoseconds.
#[inline(always)]
fn stall_threshold() -> u64 {
    // SAFETY: an array entry's pointer.
    CONTROL.get_ptr(0).map_or(u64::MAX, |control| unsafe {
        core::ptr::read_volatile(&raw const (*control).stall_threshold)
    })
}

/// From which loop duration on it is looked at where the thread is, in nanoseconds.
#[inline(always)]
pub(crate) fn warn_threshold() -> u64 {
    // SAFETY: an array entry's pointer.
    CONTROL
        .get_ptr(0)
        .map_or(u64::MAX, |control| unsafe { core::ptr::read_volatile(&raw const (*control).warn_threshold) })
}
