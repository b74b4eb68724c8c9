//! Reads single facts from files under a root directory.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::{Fact, Namespace};

pub(super) struct Files<'a> {
    root: &'a Path,
}

impl<'a> Files<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root }
    }

    /// The contents of a file, without white space at either end.
    pub(super) fn text(&self, path: &str) -> Fact<String> {
        match fs::read_to_string(self.root.join(path)) {
            Ok(text) => Fact::Known(text.trim().to_owned()),
            Err(error) => unknown(path, &error),
        }
    }

    /// The number that a file consists of.
    pub(super) fn number(&self, path: &str) -> Fact<i64> {
        self.text(path).and_then(|text| match text.parse() {
            Ok(number) => Fact::Known(number),
            Err(_) => Fact::Unknown(format!("/{path} has {text:?}")),
        })
    }

    /// The size of a file in bytes.
    pub(super) fn size(&self, path: &str) -> Fact<u64> {
        match fs::metadata(self.root.join(path)) {
            Ok(metadata) => Fact::Known(metadata.len()),
            Err(error) => unknown(path, &error),
        }
    }

    /// The namespace that a link of the form `pid:[4026531836]` stands for.
    pub(super) fn namespace(&self, path: &str, initial: u64) -> Fact<Namespace> {
        let link = match fs::read_link(self.root.join(path)) {
            Ok(link) => link,
            Err(error) => return unknown(path, &error),
        };
        let text = link.to_string_lossy();
        let inode = text.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']')).map(str::parse);
        match inode {
            Some(Ok(inode)) => Fact::Known(Namespace { inode, initial: inode == initial }),
            _ => Fact::Unknown(format!("/{path} leads to {text:?}")),
        }
    }

    /// What is mounted where.
    pub(super) fn mounts(&self) -> Fact<String> {
        self.text("proc/self/mounts")
    }

    /// Signs of a container. None of them is certain, and their absence proves nothing.
    pub(super) fn container_hints(&self) -> Vec<&'static str> {
        let mut hints = Vec::new();
        for (path, hint) in [
            (".dockerenv", "Docker (/.dockerenv)"),
            ("run/.containerenv", "Podman (/run/.containerenv)"),
            ("run/systemd/container", "a container (/run/systemd/container)"),
            ("var/run/secrets/kubernetes.io", "Kubernetes (/var/run/secrets/kubernetes.io)"),
        ] {
            if self.root.join(path).exists() {
                hints.push(hint);
            }
        }
        hints
    }
}

/// Where the first file system of this type is mounted.
pub(super) fn mount_point(mounts: &Fact<String>, kind: &str) -> Fact<PathBuf> {
    let mounts = match mounts {
        Fact::Known(mounts) => mounts,
        Fact::Unknown(reason) => return Fact::Unknown(reason.clone()),
    };
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(point), Some(found)) = (fields.next(), fields.next())
            && found == kind
        {
            return Fact::Known(unescape(point));
        }
    }
    Fact::Unknown(format!("no {kind} is mounted"))
}

/// A path as `/proc/mounts` writes it: blanks and the backslash in octal, as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(unescaped) = octal {
            bytes.push(unescaped);
            rest = &after[3..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn unknown<T>(path: &str, error: &io::Error) -> Fact<T> {
    Fact::Unknown(match error.kind() {
        io::ErrorKind::NotFound => format!("there is no /{path}"),
        _ => format!("cannot read /{path}: {error}"),
    })
}
