//! The archive that a kernel unpacks as its first file system: cpio's "new ASCII format" ("newc"),
//! `Documentation/driver-api/early-userspace/buffer-format.rst` in the kernel source.

use std::io::{self, Write};

/// The bits of a mode that say what an entry is: inode(7).
const DIRECTORY: u32 = 0o04_0000;
const REGULAR: u32 = 0o10_0000;
const LINK: u32 = 0o12_0000;
const CHARACTER_DEVICE: u32 = 0o02_0000;

/// Writes an archive, entry by entry. A directory has to come before what is in it.
pub(super) struct Writer<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// Everybody may read the directory; only root may write, unless `mode` says otherwise.
    pub(super) fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.entry(path, DIRECTORY | mode, (0, 0), &[])
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR | mode, (0, 0), content)
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes())
    }

    pub(super) fn character_device(&mut self, path: &str, mode: u32, number: (u32, u32)) -> io::Result<()> {
        self.entry(path, CHARACTER_DEVICE | mode, number, &[])
    }

    /// Writes the end of the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is too long"));
        let content_size = u32::try_from(content.len()).map_err(too_long)?;
        let path_size = u32::try_from(path.len() + 1).map_err(too_long)?;
        self.inode += 1;
        // Inode, mode, uid, gid, links, time, size, the file system's device, the entry's own device, the
        // length of the path with its final zero, a checksum that this format does not have.
        let fields = [self.inode, mode, 0, 0, 1, 0, content_size, 0, 0, device.0, device.1, path_size, 0]
            .map(|field| format!("{field:08x}"));
        let header = format!("070701{}{path}\0", fields.concat());
        self.out.write_all(header.as_bytes())?;
        self.pad(header.len())?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    /// Whatever follows begins at a multiple of four.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::PathBuf,
        process::{Command, Stdio},
    };

    use super::*;

    fn archive() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.directory("/etc", 0o755).expect("memory takes it");
        for (name, content) in [("a", ""), ("ab", "1"), ("abc", "12"), ("abcd", "123"), ("abcde", "1234")] {
            writer.file(&format!("/etc/{name}"), 0o644, content.as_bytes()).expect("memory takes it");
        }
        writer.link("/lib", "usr/lib").expect("memory takes it");
        writer.character_device("/console", 0o600, (5, 1)).expect("memory takes it");
        writer.finish().expect("memory takes it");
        bytes
    }

    /// An entry as a second reader finds it.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads an archive by the format's description, and insists on every detail of it.
    fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let whole = bytes.len();
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |place: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * place..14 + 8 * place]).expect("digits");
                u32::from_str_radix(text, 16).expect("hexadecimal")
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let device = (field(9), field(10));
            let name = &bytes[110..110 + name_size];
            assert_eq!(name.last(), Some(&0));
            let name = String::from_utf8(name[..name_size - 1].to_vec()).expect("text");
            let start = (110 + name_size).next_multiple_of(4);
            let content = bytes[start..start + size].to_vec();
            bytes = &bytes[(start + size).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty() && whole.is_multiple_of(4));
                return entries;
            }
            entries.push((name, mode, device, content));
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let entries = read(&archive());
        assert_eq!(entries.len(), 8);
        assert_eq!(entries[0], ("etc".to_owned(), 0o04_0755, (0, 0), Vec::new()));
        assert_eq!(entries[4], ("etc/abcd".to_owned(), 0o10_0644, (0, 0), b"123".to_vec()));
        assert_eq!(entries[6], ("lib".to_owned(), 0o12_0777, (0, 0), b"usr/lib".to_vec()));
        assert_eq!(entries[7], ("console".to_owned(), 0o02_0600, (5, 1), Vec::new()));
    }

    #[test]
    fn cpio_reads_it_too() {
        let path: PathBuf = std::env::temp_dir().join(format!("xtask-cpio-{}", std::process::id()));
        fs::write(&path, archive()).expect("a temporary file can be written");
        let input = fs::File::open(&path).expect("it was written");
        let listed =
            Command::new("cpio").args(["-t", "--quiet"]).stdin(input).stderr(Stdio::inherit()).output();
        fs::remove_file(&path).expect("it is ours");
        let Ok(listed) = listed else {
            let _ = writeln!(io::stderr(), "SKIPPED cpio_reads_it_too: cpio is not here");
            return;
        };
        assert!(listed.status.success());
        let names = String::from_utf8(listed.stdout).expect("text");
        let names: Vec<&str> = names.lines().collect();
        assert_eq!(names, ["etc", "etc/a", "etc/ab", "etc/abc", "etc/abcd", "etc/abcde", "lib", "console"]);
    }
}
