//! How often the CPU limits of a process's cgroups have held it back: the kernel's own count, `cpu.stat`, of the
//! process's cgroup and of those above it, in either version of cgroups.
//!
//! It is of the cgroup, not of the thread; whether a loop suffers by it, its READY time says.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::model::Throttling;

/// Where the kernel counts it for one process, and what was counted when it was first looked at.
pub(super) struct ThrottlingCounts {
    levels: Vec<(PathBuf, Throttling)>,
}

/// Cgroups nest as deep as one likes; containers are five or six deep.
const LEVELS: usize = 16;

impl ThrottlingCounts {
    /// Finds the counts of a process's cgroup and of those above it.
    pub(super) fn of(pid: u32) -> Self {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let levels = directory(&cgroups, &mounts).map_or_else(Vec::new, |(mount, below)| {
            let whole = mount.join(&below);
            let levels = whole.ancestors().take(LEVELS).take_while(|level| level.starts_with(&mount));
            // A cgroup without a controller, or the first of all, has no limit and no count.
            levels
                .map(|level| level.join("cpu.stat"))
                .filter_map(|file| read(&file).map(|counted| (file, counted)))
                .collect()
        });
        Self { levels }
    }

    /// What was counted since; of the cgroup that was held back most often. `None` where nothing is counted, or no
    /// limit is set.
    pub(super) fn since(&self) -> Option<Throttling> {
        let grown = |(file, before): &(PathBuf, Throttling)| {
            let now = read(file)?;
            Some(Throttling {
                periods: now.periods.saturating_sub(before.periods),
                throttled_periods: now.throttled_periods.saturating_sub(before.throttled_periods),
                throttled_ns: now.throttled_ns.saturating_sub(before.throttled_ns),
            })
        };
        let levels = self.levels.iter().filter_map(grown).filter(|grown| grown.periods > 0);
        levels.max_by_key(|grown| (grown.throttled_periods, grown.periods))
    }
}

/// Where the controller of CPU time is mounted, and where the process is below that: of version 1 if the controller
/// is there, else of version 2. Lines of `/proc/PID/cgroup` and `/proc/self/mountinfo`, proc(5).
fn directory(cgroups: &str, mounts: &str) -> Option<(PathBuf, PathBuf)> {
    let entries =
        || cgroups.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
    let first = entries().find_map(|[_, controllers, path]: [&str; 3]| {
        controllers.split(',').any(|name| name == "cpu").then_some(path)
    });
    let second = entries().find_map(|[number, _, path]: [&str; 3]| (number == "0").then_some(path));
    let is_of_cpu =
        |kind: &str, options: &str| kind == "cgroup" && options.split(',').any(|name| name == "cpu");
    let found = first.and_then(|path| Some((mount(mounts, is_of_cpu)?, path)));
    let found = found.or_else(|| Some((mount(mounts, |kind, _| kind == "cgroup2")?, second?)));
    let ((root, mount), path) = found?;
    let below = Path::new(path).strip_prefix(root).ok()?;
    Some((mount, below.to_owned()))
}

/// The first mount of a file system of this kind and these options: what of it is mounted, and where.
fn mount(mounts: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        let (kind, options) = (what.next()?, what.nth(1)?);
        let mut place = place.split(' ').skip(3);
        let (root, mount) = (place.next()?, place.next()?);
        wanted(kind, options).then(|| (PathBuf::from(root), PathBuf::from(mount)))
    })
}

fn read(file: &Path) -> Option<Throttling> {
    parse(&fs::read_to_string(file).ok()?)
}

/// `cpu.stat`, as `cpu_cfs_stat_show` and `cpu_extra_stat_show` in kernel/sched/core.c write it: `throttled_usec` in
/// version 2, `throttled_time` in nanoseconds in version 1.
fn parse(text: &str) -> Option<Throttling> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<u64>().ok())
    };
    Some(Throttling {
        periods: value("nr_periods")?,
        throttled_periods: value("nr_throttled")?,
        throttled_ns: value("throttled_time")
            .or_else(|| Some(value("throttled_usec")?.saturating_mul(1_000)))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        24 23 0:21 / /proc rw - proc proc rw\n\
        30 23 0:26 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        31 23 0:27 /docker/1 /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_directory_is_the_controllers_own_or_the_second_versions() {
        let first = directory("3:cpu,cpuacct:/web/1\n0::/docker/1/x\n", MOUNTS);
        assert_eq!(first, Some(("/sys/fs/cgroup/cpu".into(), "web/1".into())));
        let second = directory("0::/docker/1/x\n", MOUNTS);
        assert_eq!(second, Some(("/sys/fs/cgroup/unified".into(), "x".into())));
        assert_eq!(directory("0::/elsewhere\n", MOUNTS), None);
        assert_eq!(directory("", MOUNTS), None);
        assert_eq!(directory("0::/\n", ""), None);
        assert_eq!(directory("nonsense\n", "nonsense\n"), None);
    }

    #[test]
    fn both_versions_are_read() {
        let read = Throttling { periods: 50, throttled_periods: 12, throttled_ns: 3_000_000 };
        assert_eq!(parse("nr_periods 50\nnr_throttled 12\nthrottled_time 3000000\nwait_sum 7\n"), Some(read));
        assert_eq!(parse("usage_usec 9\nnr_periods 50\nnr_throttled 12\nthrottled_usec 3000\n"), Some(read));
        assert_eq!(parse("usage_usec 9\nuser_usec 1\n"), None);
    }
}
