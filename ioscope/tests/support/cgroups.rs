//! Cgroups that hold a program back, of either version: gone when they are dropped.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A cgroup with a limit of CPU time, or none.
pub(crate) struct CpuLimit(PathBuf);

impl CpuLimit {
    /// Its processes may use so much of each 100 ms; all of it if `None`. They do not wait for others as well: it has the highest
    /// weight.
    pub(crate) fn of(name: &str, quota_us: Option<u32>) -> Result<Self, String> {
        let name = format!("ioscope-test-{}-{name}", std::process::id());
        let made = |parent: &str| {
            let path = Path::new(parent).join(&name);
            fs::create_dir(&path).map(|()| Self(path)).map_err(|error| format!("{parent}: {error}"))
        };
        if Path::new("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").exists()
            || Path::new("/sys/fs/cgroup/cpu/cgroup.procs").exists()
        {
            let group = made("/sys/fs/cgroup/cpu")?;
            let quota = quota_us.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
            group.write("cpu.shares", "262144")?;
            group.write("cpu.cfs_period_us", "100000")?;
            group.write("cpu.cfs_quota_us", &quota)?;
            return Ok(group);
        }
        // The controller has to be handed down, where that was not done.
        let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu");
        let group = made("/sys/fs/cgroup")?;
        let quota = quota_us.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        group.write("cpu.weight", "10000")?;
        group.write("cpu.max", &format!("{quota} 100000"))?;
        Ok(group)
    }

    pub(crate) fn take_in(&self, pid: u32) {
        self.write("cgroup.procs", &pid.to_string()).expect("it can be moved");
    }

    /// The kernel's count of periods in which it was held back.
    pub(crate) fn throttled_times(&self) -> u64 {
        self.count("nr_throttled ").expect("it counts that")
    }

    /// For how long, in nanoseconds, added up over the CPUs: version 1 says so in nanoseconds, version 2 in microseconds.
    pub(crate) fn throttled_ns(&self) -> u64 {
        let ns = self.count("throttled_time ").or_else(|| Some(self.count("throttled_usec ")? * 1000));
        ns.expect("it counts that")
    }

    fn count(&self, name: &str) -> Option<u64> {
        let stat = fs::read_to_string(self.0.join("cpu.stat")).expect("it counts");
        stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    fn write(&self, file: &str, value: &str) -> Result<(), String> {
        let path = self.0.join(file);
        fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// A cgroup whose reads or writes of the disk of the temporary files are slow, of either version; gone when it is dropped.
pub(crate) struct SlowDisk(PathBuf);

impl SlowDisk {
    /// So many a second of these: `read` or `write`. `None` where there is no such controller, or no such disk.
    pub(crate) fn of(operations: &str, per_second: u32) -> Option<Self> {
        let device = fs::metadata(std::env::temp_dir()).ok()?.dev();
        let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let name = format!("ioscope-test-{}-{operations}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/blkio");
        let (path, file, limit) = if v1.join("cgroup.procs").exists() {
            let file = format!("blkio.throttle.{operations}_iops_device");
            (v1.join(name), file, format!("{device} {per_second}"))
        } else {
            // It may be on already, or not be ours to switch on.
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+io");
            let path = Path::new("/sys/fs/cgroup").join(name);
            let limit = format!("{device} {}iops={per_second}", &operations[..1]);
            (path, "io.max".to_owned(), limit)
        };
        fs::create_dir(&path).ok()?;
        let this = Self(path);
        fs::write(this.0.join(file), limit).ok()?;
        Some(this)
    }

    pub(crate) fn take_in(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("it can be moved");
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Its last process may have to be waited for by its parent first.
fn remove(path: &Path) {
    for _ in 0..100 {
        if fs::remove_dir(path).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
