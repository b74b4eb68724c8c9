//! Finding the debug information that was split off a file: by its build-id, or by the name in its `.gnu_debuglink`.
//!
//! On the process's own disk first, then on ours: where a container brings none, the host may have it, and a
//! build-id is the same everywhere. Nothing is asked for over the network.

use std::{
    fmt::Write as _,
    fs::File,
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use object::{Object, ReadCache};

use super::root::Root;

/// Where distributions put debug information.
const DIRECTORY: &str = "/usr/lib/debug";

/// What a file says about its debug information.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// What the linker called the build.
    pub(super) build_id: Option<Vec<u8>>,
    /// The name of the debug file, without a directory, and the checksum of its content.
    pub(super) name: Option<(Vec<u8>, u32)>,
}

impl Link {
    /// Reads it from an ELF file.
    pub(super) fn read<'data>(object: &impl Object<'data>) -> Self {
        let build_id = object.build_id().ok().flatten().filter(|id| id.len() >= 2).map(<[u8]>::to_vec);
        let name = object.gnu_debuglink().ok().flatten();
        // A name with a directory is not what the section is for.
        let name = name.filter(|(name, _)| !name.is_empty() && !name.contains(&b'/'));
        Self { build_id, name: name.map(|(name, checksum)| (name.to_vec(), checksum)) }
    }

    /// Looks for the debug file of the file that has this link and this path.
    pub(super) fn find(&self, of: &File, path: &Path, roots: &[&Root]) -> Option<File> {
        let of = identity(of).ok()?;
        let found = self.candidates(path);
        let mut opened = roots.iter().flat_map(|root| found.iter().filter_map(|path| root.open(path).ok()));
        opened.find(|file| identity(file).is_ok_and(|found| found != of) && self.belongs_to(file))
    }

    /// In the order in which gdb looks: by build-id, beside the file, below it, and in the global directory.
    fn candidates(&self, path: &Path) -> Vec<PathBuf> {
        let mut candidates = Vec::new();
        if let Some((first, rest)) = self.build_id.as_deref().and_then(<[u8]>::split_first) {
            let mut name = format!("{DIRECTORY}/.build-id/{first:02x}/");
            for byte in rest {
                _ = write!(name, "{byte:02x}");
            }
            name.push_str(".debug");
            candidates.push(name.into());
        }
        if let (Some((name, _)), Some(directory)) = (&self.name, path.parent()) {
            let name = std::ffi::OsStr::from_bytes(name);
            candidates.push(directory.join(name));
            candidates.push(directory.join(".debug").join(name));
            let below = directory.strip_prefix("/").unwrap_or(directory);
            candidates.push(Path::new(DIRECTORY).join(below).join(name));
        }
        candidates
    }

    /// By the build-id where both have one; otherwise by the checksum.
    fn belongs_to(&self, candidate: &File) -> bool {
        let cache = ReadCache::new(candidate);
        let Ok(object) = object::File::parse(&cache) else { return false };
        match (&self.build_id, object.build_id()) {
            (Some(wanted), Ok(Some(found))) => wanted == found,
            _ => match self.name {
                Some((_, wanted)) => checksum(candidate).is_ok_and(|found| found == wanted),
                None => false,
            },
        }
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|meta| (meta.dev(), meta.ino()))
}

/// CRC-32 of the whole content.
fn checksum(file: &File) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut chunk = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut chunk, offset)?;
        if count == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update(&chunk[..count]);
        offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn candidates_are_where_gdb_looks() {
        let link = Link { build_id: Some(vec![0xab, 0x01, 0xff]), name: Some((b"a.debug".to_vec(), 1)) };
        assert_eq!(
            link.candidates(Path::new("/opt/app/bin/a")),
            [
                "/usr/lib/debug/.build-id/ab/01ff.debug",
                "/opt/app/bin/a.debug",
                "/opt/app/bin/.debug/a.debug",
                "/usr/lib/debug/opt/app/bin/a.debug",
            ]
            .map(PathBuf::from)
        );
        assert_eq!(Link::default().candidates(Path::new("/opt/app/bin/a")), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_checksum_is_the_one_of_zip_and_ethernet() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"123456789").unwrap();
        assert_eq!(checksum(&file).unwrap(), 0xcbf4_3926);
    }
}
