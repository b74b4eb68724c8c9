use super::super::btf::synth::Synth;
use super::*;

/// A kernel in miniature, of which one member can be left out.
struct Kernel {
    without: &'static [&'static str],
    old: bool,
    arch: Arch,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { without: &[], old: false, arch: Arch::X86_64 }
    }
}

impl Kernel {
    fn btf(&self) -> Btf {
        let mut synth = Synth::new();
        let int = synth.int("int", 4);
        let long = synth.int("long", 8);
        let pointer = synth.pointer(0);
        let add = |synth: &mut Synth, name: &str, members: &[(&str, u32)]| {
            // Members 16 bytes apart, in the order given.
            let placed: Vec<_> = (0_u32..)
                .zip(members)
                .filter(|(_, (member, _))| !self.without.contains(&format!("{name}.{member}").as_str()))
                .map(|(index, (member, id))| (*member, *id, index * 128))
                .collect();
            let size = u32::try_from(members.len()).unwrap() * 16;
            synth.structure(name, size, &placed)
        };
        let preempt = synth.structure("", 8, &[("count", int, 0), ("need_resched", int, 32)]);
        let preempt = synth.union("", 8, &[("preempt_count", long, 0), ("preempt", preempt, 0)]);
        let info = match self.arch {
            Arch::X86_64 => add(&mut synth, "thread_info", &[("flags", long), ("status", int)]),
            Arch::Aarch64 => add(&mut synth, "thread_info", &[("flags", long), ("", preempt)]),
        };
        let name = synth.array(int, 4);
        let (state, state_size) = if self.old { ("state", long) } else { ("__state", int) };
        let start = if self.old { "real_start_time" } else { "start_boottime" };
        let task = [
            ("thread_info", info),
            (state, state_size),
            ("pid", int),
            ("tgid", int),
            ("comm", name),
            ("flags", int),
            ("signal", pointer),
            ("thread_pid", pointer),
            ("files", pointer),
            ("group_leader", pointer),
            ("real_parent", pointer),
            ("exit_code", int),
            (start, long),
            ("io_uring", pointer),
            ("stack", pointer),
        ];
        add(&mut synth, "task_struct", &task);
        let counter = synth.structure("", 4, &[("counter", int, 0)]);
        let atomic = synth.typedef("atomic_t", counter);
        let pids = synth.array(pointer, 4);
        add(&mut synth, "signal_struct", &[("live", atomic), ("pids", pids)]);
        synth.enumeration(false, "pid_type", &[("PIDTYPE_PID", 0), ("PIDTYPE_TGID", 1)]);
        let upid = synth.structure("upid", 16, &[("nr", int, 0), ("ns", pointer, 64)]);
        let numbers = synth.array(upid, 1 - u32::from(!self.old));
        add(&mut synth, "pid", &[("level", int), ("numbers", numbers)]);
        let ns = add(&mut synth, "ns_common", &[("stashed", pointer), ("inum", int)]);
        add(&mut synth, "pid_namespace", &[("level", int), ("ns", ns)]);
        add(&mut synth, "files_struct", &[("count", atomic), ("fdt", pointer)]);
        add(&mut synth, "fdtable", &[("max_fds", int), ("fd", pointer)]);
        add(&mut synth, "file", &[("f_op", pointer), ("private_data", pointer)]);
        self.regs(&mut synth, long, int);
        let ring = synth.structure("io_uring", 8, &[("head", int, 0), ("tail", int, 32)]);
        add(&mut synth, "io_rings", &[("sq", ring), ("cq", ring), ("cq_overflow", int)]);
        let hot = synth.structure("", 64, &[("flags", int, 0), ("rings", pointer, 128)]);
        add(&mut synth, "io_ring_ctx", &[("refs", pointer), ("", hot)]);
        add(&mut synth, "io_kiocb", &[("file", pointer), ("ctx", pointer)]);
        let rings = synth.array(pointer, 16);
        add(&mut synth, "io_uring_task", &[("last", pointer), ("registered_rings", rings)]);
        Self::readiness(&mut synth, pointer, int);
        Btf::from_bytes(synth.bytes()).unwrap()
    }

    fn readiness(synth: &mut Synth, pointer: u32, int: u32) {
        let list = synth.structure("list_head", 16, &[("next", pointer, 0), ("prev", pointer, 64)]);
        let wait = [("flags", int, 0), ("func", pointer, 128), ("entry", list, 192)];
        let wait = synth.structure("wait_queue_entry", 40, &wait);
        synth.structure("eppoll_entry", 64, &[("base", pointer, 64), ("wait", wait, 128)]);
        let event = synth.structure("epoll_event", 12, &[("events", int, 0)]);
        synth.structure("epitem", 128, &[("ep", pointer, 512), ("event", event, 640)]);
        let head = synth.structure("wait_queue_head", 24, &[("lock", int, 0), ("head", list, 64)]);
        synth.structure("socket_wq", 64, &[("wait", head, 0)]);
        let queue = synth.union("", 8, &[("sk_wq", pointer, 0), ("sk_wq_raw", pointer, 0)]);
        synth.structure("sock", 760, &[("", queue, 2048)]);
    }

    fn regs(&self, synth: &mut Synth, long: u32, int: u32) {
        let members = match self.arch {
            Arch::X86_64 => {
                let cs = synth.union("", 8, &[("cs", int, 0), ("csx", long, 0)]);
                let names = ["r10", "r9", "r8", "ax", "dx", "si", "di", "orig_ax", "ip", "sp"];
                let mut members = names.map(|name| (name, long)).to_vec();
                members.push(("", cs));
                members
            }
            Arch::Aarch64 => {
                let regs = synth.array(long, 31);
                let inner =
                    [("regs", regs, 0), ("sp", long, 1984), ("pc", long, 2048), ("pstate", long, 2112)];
                let inner = synth.structure("", 272, &inner);
                vec![("", inner), ("pad", long), ("orig_x0", long), ("syscallno", int)]
            }
        };
        let placed: Vec<_> =
            (0_u32..).zip(members).map(|(index, (name, id))| (name, id, index * 64)).collect();
        synth.structure("pt_regs", 400, &placed);
    }
}

#[test]
fn a_new_kernel() {
    let layout = KernelLayout::read(&Kernel::default().btf(), Arch::X86_64).unwrap();
    assert_eq!((layout.task.state, layout.task.state_size), (16, 4));
    assert_eq!(layout.task.compat, CompatLayout { word: 16, mask: 2 });
    assert_eq!(layout.signal.tgid_pid, 16 + 8);
    assert_eq!((layout.pid.numbers, layout.pid.numbers_stride, layout.pid.ns_inum), (16, 16, 32));
    assert_eq!(layout.regs.args, [48, 40, 32, 0, 16, 8]);
    assert_eq!((layout.regs.syscall, layout.regs.syscall_size, layout.regs.mode), (56, 8, 80));
    let count = layout.preempt_count.unwrap();
    assert_eq!((count.softirq, count.hardirq, count.nmi), (0x100, 0x000f_0000, 0x00f0_0000));
    let place = PreemptPlace::PerCpu { symbol: "__preempt_count", offset: 0, from_task: None };
    assert_eq!(count.place, place);
    let io_uring = layout.io_uring.unwrap();
    assert_eq!((io_uring.rings, io_uring.sq_head, io_uring.cq_tail), (32, 0, 20));
    assert_eq!((io_uring.registered_rings, io_uring.registered_rings_len), (Some(16), 16));
    assert_eq!(io_uring.request_ring, Some(16));
    let readiness = ReadinessLayout {
        entry_wait: 16,
        entry_link: 40,
        entry_base: 8,
        item_ep: 64,
        item_events: 80,
        sock_wq: 256,
        socket_wq_head: 8,
    };
    assert_eq!(layout.readiness, Some(readiness));
    assert_eq!(layout.task.stack_registers, 16384 - 400);
    assert_eq!(layout.lost, []);
}

#[test]
fn an_old_kernel() {
    let layout = KernelLayout::read(&Kernel { old: true, ..Kernel::default() }.btf(), Arch::X86_64).unwrap();
    assert_eq!((layout.task.state, layout.task.state_size), (16, 8));
    assert_eq!(layout.task.start_boottime, 12 * 16);
    // Before flexible arrays, `numbers` was an array of one.
    assert_eq!(layout.pid.numbers_stride, 16);
}

#[test]
fn arm() {
    let kernel = Kernel { arch: Arch::Aarch64, ..Kernel::default() };
    let layout = KernelLayout::read(&kernel.btf(), Arch::Aarch64).unwrap();
    assert_eq!(layout.task.compat, CompatLayout { word: 0, mask: 1 << 22 });
    assert_eq!(layout.preempt_count.unwrap().place, PreemptPlace::Task { offset: 16 });
    assert_eq!(layout.regs.args, [16, 8, 16, 24, 32, 40]);
    assert_eq!((layout.regs.syscall, layout.regs.syscall_size, layout.regs.result), (24, 4, 0));
    assert_eq!((layout.regs.sp, layout.regs.ip, layout.regs.mode), (248, 256, 264));
}

fn preempt_count(synth: &Synth) -> PreemptCount {
    let btf = Btf::from_bytes(synth.bytes()).unwrap();
    PreemptCount::of(&btf, Arch::X86_64).unwrap()
}

#[test]
fn the_bits_of_an_interrupt_moved() {
    let mut synth = Synth::new();
    let long = synth.int("long", 8);
    assert_eq!(preempt_count(&synth).hardirq, 0x000f_0000);
    synth.variable("local_interrupt_disable_state", long);
    assert_eq!(preempt_count(&synth).hardirq, 0x0f00_0000);
}

#[test]
fn a_per_cpu_variable_is_found_from_the_run_queue() {
    let mut synth = Synth::new();
    let long = synth.int("long", 8);
    let hot = synth.structure("pcpu_hot", 64, &[("current_task", long, 0), ("preempt_count", long, 64)]);
    let pointer = synth.pointer(0);
    let entity = synth.structure("sched_entity", 64, &[("load", long, 0), ("cfs_rq", pointer, 128)]);
    synth.structure("task_struct", 256, &[("flags", long, 0), ("se", entity, 512)]);
    synth.structure("cfs_rq", 64, &[("load", long, 0), ("rq", pointer, 64)]);
    let hot = synth.variable("pcpu_hot", hot);
    let queues = synth.variable("runqueues", long);
    synth.section(".data..percpu", &[(hot, 4096, 64), (queues, 8192, 8)]);
    let from_task = Some(PerCpuPath { cfs_rq: 80, rq: 8, distance: 8 - 4096 });
    let place = PreemptPlace::PerCpu { symbol: "pcpu_hot", offset: 8, from_task };
    assert_eq!(preempt_count(&synth).place, place);
}

#[test]
fn what_is_essential_is_named_when_it_is_missing() {
    let kernel = Kernel { without: &["task_struct.tgid"], ..Kernel::default() };
    let error = KernelLayout::read(&kernel.btf(), Arch::X86_64).unwrap_err();
    assert_eq!((error.structure, error.member.as_str()), ("task_struct", "tgid"));
    let text = error.to_string();
    assert!(text.contains("task_struct.tgid") && text.contains(&error.kernel), "{text}");
}

#[test]
fn what_is_optional_names_what_is_lost() {
    let kernel = Kernel { without: &["task_struct.io_uring", "io_rings.cq_overflow"], ..Kernel::default() };
    let layout = KernelLayout::read(&kernel.btf(), Arch::X86_64).unwrap();
    assert_eq!(layout.task.io_uring, None);
    assert_eq!(layout.io_uring.unwrap().cq_overflow, None);
    let lost: Vec<_> = layout.lost.iter().map(|lost| (lost.structure, lost.member)).collect();
    assert_eq!(lost, [("task_struct", "io_uring"), ("io_rings", "cq_overflow")]);
}

#[test]
fn a_kernel_without_io_uring() {
    let kernel = Kernel { without: &["io_rings.cq"], ..Kernel::default() };
    let layout = KernelLayout::read(&kernel.btf(), Arch::X86_64).unwrap();
    assert_eq!(layout.io_uring, None);
    assert!(layout.lost[0].feature.contains("io_uring"));
}

#[test]
fn the_running_kernel() {
    let Some(arch) = Arch::host() else { return };
    let Some(btf) = super::super::btf::tests::running_kernel() else { return };
    let layout = KernelLayout::read(&btf, arch).unwrap();
    assert_eq!(layout.task.tgid, layout.task.pid + 4);
    assert_eq!(layout.pid.numbers_stride, 16);
    assert!(layout.preempt_count.is_some());
    println!("{layout:#?}");
}

/// The BTF of other kernels: raw files named `….amd64.btf` or `….arm64.btf`, in a directory that the environment
/// names.
pub(crate) fn other_kernels() -> Vec<(String, Arch, Btf)> {
    let Some(directory) = std::env::var_os("IOSCOPE_TEST_BTF_DIR") else {
        eprintln!("SKIPPED: IOSCOPE_TEST_BTF_DIR names no directory of raw BTF files");
        return Vec::new();
    };
    let mut kernels = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let arch = match name.strip_suffix(".btf").and_then(|name| name.get(name.len() - 5..)) {
            Some("amd64") => Arch::X86_64,
            Some("arm64") => Arch::Aarch64,
            _ => continue,
        };
        kernels.push((name, arch, Btf::from_file(&path).unwrap()));
    }
    assert!(!kernels.is_empty(), "no BTF there");
    kernels
}

#[test]
fn the_layout_of_other_kernels() {
    for (name, arch, btf) in other_kernels() {
        let layout = KernelLayout::read(&btf, arch).unwrap_or_else(|error| panic!("{name}: {error}"));
        println!("{name}: {layout:#?}");
    }
}
