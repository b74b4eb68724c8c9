//! What a process has mapped where: `/proc/PID/maps` (`fs/proc/task_mmu.c`, `show_map_vma`).

use std::ops::Range;

/// A mapping of a process that code can run in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// The addresses.
    pub(super) range: Range<u64>,
    /// Where in the file the mapping begins.
    pub(super) offset: u64,
    /// The file's inode, 0 without a file.
    pub(super) inode: u64,
    /// What is mapped.
    pub(super) backing: Backing,
}

/// What is behind a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Backing {
    /// A file that still has the name that it was mapped by.
    File(String),
    /// A file that was deleted or replaced since; the name that it had.
    Deleted(String),
    /// The kernel's own library in every process.
    Vdso,
    /// Memory without a file, `[anon:NAME]` included: what just-in-time compilers write code into.
    Anonymous,
    /// `[vsyscall]` and what else the kernel provides.
    Special,
}

/// What the kernel puts after the name of a file that has none any more.
const DELETED: &str = " (deleted)";

impl Mapping {
    /// The part of the file that is mapped.
    pub(super) const fn in_file(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.range.end.saturating_sub(self.range.start))
    }
}

/// The mappings that code can run in, in the order of their addresses. Lines that are none are passed over.
pub(super) fn executable(maps: &str) -> Vec<Mapping> {
    maps.lines().filter_map(mapping).collect()
}

/// Which of `items`, sorted by their addresses, has this address.
pub(super) fn find<T>(items: &[T], range: impl Fn(&T) -> &Range<u64>, address: u64) -> Option<usize> {
    let after = items.partition_point(|item| range(item).start <= address);
    let at = after.checked_sub(1)?;
    range(&items[at]).contains(&address).then_some(at)
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE       NAME`; only of what is executable.
fn mapping(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.split_once(' ')?;
        rest = after;
        Some(field)
    };
    let (start, end) = field()?.split_once('-')?;
    let permissions = field()?;
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let offset = field()?;
    field()?;
    let inode = field().unwrap_or(rest);
    let name = if inode == rest { "" } else { rest.trim_start_matches(' ') };
    let hexadecimal = |digits| u64::from_str_radix(digits, 16).ok();
    Some(Mapping {
        range: hexadecimal(start)?..hexadecimal(end)?,
        offset: hexadecimal(offset)?,
        inode: inode.parse().ok()?,
        backing: backing(name),
    })
}

fn backing(name: &str) -> Backing {
    match name {
        "" => Backing::Anonymous,
        "[vdso]" => Backing::Vdso,
        _ if name.starts_with("[anon") || name == "[heap]" || name == "[stack]" => Backing::Anonymous,
        _ if name.starts_with('[') => Backing::Special,
        // The only character that is escaped.
        _ => match name.strip_suffix(DELETED) {
            Some(name) => Backing::Deleted(name.replace("\\012", "\n")),
            None => Backing::File(name.replace("\\012", "\n")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
555555554000-555555556000 r--p 00000000 fe:00 1234                       /usr/bin/a
555555556000-555555559000 r-xp 00002000 fe:00 1234                       /usr/bin/a
7ffff0000000-7ffff0021000 rwxp 00000000 00:00 0 
7ffff0021000-7ffff0022000 r-xp 00000000 00:00 0                          [anon:code]
7ffff1000000-7ffff1001000 r-xs 00000000 00:01 77                         /memfd:double (deleted)
7ffff2000000-7ffff2001000 r-xp 00001000 fe:00 99                         /opt/with space/l\\012b.so
7ffff3000000-7ffff3001000 r-xp 00001000 fe:00 98                         /usr/lib/old.so (deleted)
7ffff7fc0000-7ffff7fc2000 r-xp 00000000 00:00 0                          [vdso]
not a mapping
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn what_code_can_run_in_is_found() {
        let found: Vec<_> = executable(MAPS)
            .into_iter()
            .map(|found| (found.range.start, found.inode, found.backing))
            .collect();
        assert_eq!(
            found,
            [
                (0x5555_5555_6000, 1234, Backing::File("/usr/bin/a".to_owned())),
                (0x7fff_f000_0000, 0, Backing::Anonymous),
                (0x7fff_f002_1000, 0, Backing::Anonymous),
                (0x7fff_f100_0000, 77, Backing::Deleted("/memfd:double".to_owned())),
                (0x7fff_f200_0000, 99, Backing::File("/opt/with space/l\nb.so".to_owned())),
                (0x7fff_f300_0000, 98, Backing::Deleted("/usr/lib/old.so".to_owned())),
                (0x7fff_f7fc_0000, 0, Backing::Vdso),
                (0xffff_ffff_ff60_0000, 0, Backing::Special),
            ]
        );
    }

    #[test]
    fn an_address_is_in_one_mapping_or_none() {
        let mappings = executable(MAPS);
        let find = |mappings: &[Mapping], address| find(mappings, |mapping| &mapping.range, address);
        assert_eq!(find(&mappings, 0x5555_5555_5fff), None);
        assert_eq!(find(&mappings, 0x5555_5555_6000), Some(0));
        assert_eq!(find(&mappings, 0x5555_5555_8fff), Some(0));
        assert_eq!(find(&mappings, 0x5555_5555_9000), None);
        assert_eq!(find(&mappings, 0x7fff_f002_1000), Some(2));
        assert_eq!(find(&mappings, 0), None);
        assert_eq!(find(&mappings, u64::MAX), None);
        assert_eq!(mappings[0].in_file(), 0x2000..0x5000);
    }

    #[test]
    fn this_process_has_its_own_code_mapped() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mappings = executable(&maps);
        let here = this_process_has_its_own_code_mapped as *const () as u64;
        let found = &mappings[find(&mappings, |mapping| &mapping.range, here).unwrap()];
        assert_eq!(
            found.backing,
            Backing::File(std::env::current_exe().unwrap().to_str().unwrap().to_owned())
        );
    }
}
