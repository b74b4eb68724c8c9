//! Debian's kernels: which there are, which of a series is the newest, and where its image lies in the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    apt::{Apt, Archive, Installed, Offer, Suite},
    arch::Arch,
    version,
};

/// Where Debian has kernels: of its last releases, and the newer ones for them.
const SUITES: &[Suite] = &[
    (Archive::Main, "bullseye"),
    (Archive::Security, "bullseye-security"),
    (Archive::Main, "bookworm"),
    (Archive::Security, "bookworm-security"),
    (Archive::Main, "bookworm-backports"),
    (Archive::Main, "trixie"),
    (Archive::Security, "trixie-security"),
    (Archive::Main, "trixie-backports"),
];

/// What the names of packages with a kernel's image begin with. From 6.19 on it is in the second, and the
/// first, of the same release, only asks for it.
const PREFIXES: [&str; 2] = ["linux-image-", "linux-binary-"];

/// The mirrors are asked again what they have when their last answer is older.
const FRESH: Duration = Duration::from_hours(7 * 24);

/// How many packages of a series are tried when the newest are gone.
const TRIES: usize = 6;

/// A kernel to boot.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// Its series: `6.12`.
    pub(super) series: String,
    /// Debian's version of the package.
    pub(super) version: String,
    /// The compressed image.
    pub(super) image: PathBuf,
}

/// What the mirrors had, when they were last asked.
#[derive(Serialize, Deserialize)]
struct Index {
    kernels: Vec<Listed>,
}

/// A package with a kernel's image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    name: String,
    version: String,
    sha256: String,
}

/// The kernels that can be had, and those that are here already.
pub(super) struct Kernels {
    directory: PathBuf,
    arch: Arch,
    listed: Vec<Listed>,
    /// Made when something has to be downloaded.
    apt: Option<Apt>,
}

impl Kernels {
    /// What there is for an architecture; `directory` keeps it. `refresh`: ask the mirrors in any case.
    pub(super) fn open(directory: &Path, arch: Arch, refresh: bool) -> Result<Self> {
        let directory = directory.join("kernels");
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let mut kernels = Self { directory, arch, listed: Vec::new(), apt: None };
        let index = kernels.index();
        let age = fs::metadata(&index)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        if !refresh && age.is_some_and(|age| age < FRESH) {
            kernels.listed = read_index(&index)?;
        } else if let Err(error) = kernels.ask() {
            kernels.listed = read_index(&index).map_err(|_| error)?;
            eprintln!("the mirrors do not answer: what they had is taken from {}", index.display());
        }
        Ok(kernels)
    }

    fn index(&self) -> PathBuf {
        self.directory.join(format!("{}.json", self.arch))
    }

    fn apt(&mut self) -> Result<&Apt> {
        if self.apt.is_none() {
            let directory = self.directory.join(format!("apt-{}", self.arch));
            self.apt = Some(Apt::new(&directory, self.arch.debian(), SUITES, Installed::Nothing)?);
        }
        self.apt.as_ref().context("it was just made")
    }

    /// Asks the mirrors what they have.
    fn ask(&mut self) -> Result<()> {
        let arch = self.arch;
        let apt = self.apt()?;
        if let Err(error) = apt.update() {
            // A release that a mirror has dropped is no reason to do without the others.
            eprintln!("{error:#}");
        }
        let mut offers = Vec::new();
        for prefix in PREFIXES {
            offers.extend(apt.offers(prefix)?);
        }
        let listed = list(&offers, arch);
        if listed.is_empty() {
            bail!("the mirrors have no kernel for {arch}");
        }
        let index = Index { kernels: listed };
        fs::write(self.index(), serde_json::to_string_pretty(&index)? + "\n")?;
        self.listed = index.kernels;
        Ok(())
    }

    /// The newest kernel of a series that can be had, downloaded if it is not here.
    pub(super) fn get(&mut self, series: &str) -> Result<Kernel> {
        let listed: Vec<Listed> = self
            .listed
            .iter()
            .filter(|kernel| series_of(kernel, self.arch) == Some(series))
            .cloned()
            .collect();
        if listed.is_empty() {
            let mut known: Vec<&str> =
                self.listed.iter().filter_map(|kernel| series_of(kernel, self.arch)).collect();
            known.dedup();
            bail!("there is no kernel {series} for {}; there are {}", self.arch, known.join(", "));
        }
        let mut last = None;
        for kernel in listed.iter().take(TRIES) {
            match self.fetch(kernel) {
                Ok(image) => {
                    return Ok(Kernel { series: series.to_owned(), version: kernel.version.clone(), image });
                }
                Err(error) => {
                    eprintln!("{} cannot be had, the next older one may: {error:#}", kernel.name);
                    last = Some(error);
                }
            }
        }
        let error = last.context("no kernel was tried")?;
        Err(error.context(format!("no kernel {series} can be had")))
    }

    fn fetch(&mut self, kernel: &Listed) -> Result<PathBuf> {
        let image = self.directory.join(format!("{}.vmlinuz", kernel.sha256));
        if image.exists() {
            return Ok(image);
        }
        let downloads = self.directory.join(format!("download-{}", std::process::id()));
        let offer = Offer {
            name: kernel.name.clone(),
            version: kernel.version.clone(),
            sha256: kernel.sha256.clone(),
        };
        let done = self.apt()?.download(&offer, &downloads).and_then(|package| {
            let bytes = fs::read(&package)?;
            let found = checksum(&bytes);
            if found != kernel.sha256 {
                bail!("{} has the checksum {found}, and {} was announced", kernel.name, kernel.sha256);
            }
            unpack_image(&package, &downloads.join("vmlinuz"))?;
            // In one step, for others that look for it at this moment.
            fs::rename(downloads.join("vmlinuz"), &image)?;
            Ok(image)
        });
        let _ = fs::remove_dir_all(&downloads);
        done
    }
}

fn read_index(path: &Path) -> Result<Vec<Listed>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let index: Index =
        serde_json::from_str(&text).with_context(|| format!("{} is broken", path.display()))?;
    Ok(index.kernels)
}

fn checksum(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let digits: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// Takes the one file out of the package.
fn unpack_image(package: &Path, image: &Path) -> Result<()> {
    let mut archive = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let input = archive.stdout.take().context("dpkg-deb's output")?;
    let output = fs::File::create(image)?;
    let unpacked = Command::new("tar")
        .args(["--extract", "--to-stdout", "--wildcards", "*/vmlinuz*"])
        .stdin(input)
        .stdout(output)
        .status()
        .context("cannot start tar")?;
    let read = archive.wait()?;
    if !read.success() || !unpacked.success() || fs::metadata(image)?.len() == 0 {
        bail!(
            "no kernel's image is in {}: dpkg-deb ended with {read}, tar with {unpacked}",
            package.display()
        );
    }
    Ok(())
}

/// The release that a package is for: `6.12.117+deb13` of `linux-image-6.12.117+deb13-cloud-amd64`.
fn release(name: &str, arch: Arch) -> Option<&str> {
    let release = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let release = release.strip_suffix(arch.debian())?.strip_suffix("-cloud-")?;
    // The others are packages that ask for the newest of a series.
    let dots = release.bytes().filter(|byte| *byte == b'.').count();
    (release.starts_with(|c: char| c.is_ascii_digit()) && dots >= 2).then_some(release)
}

fn series_of(kernel: &Listed, arch: Arch) -> Option<&str> {
    let release = release(&kernel.name, arch)?;
    let second = release.match_indices('.').nth(1)?.0;
    Some(&release[..second])
}

/// The packages with an image, newest first.
fn list(offers: &[Offer], arch: Arch) -> Vec<Listed> {
    let [image, binary] = PREFIXES;
    let mut listed: Vec<Listed> = offers
        .iter()
        .filter(|offer| {
            release(&offer.name, arch).is_some_and(|release| {
                let other = format!("{binary}{release}-cloud-{}", arch.debian());
                !(offer.name.starts_with(image) && offers.iter().any(|offer| offer.name == other))
            })
        })
        .map(|offer| Listed {
            name: offer.name.clone(),
            version: offer.version.clone(),
            sha256: offer.sha256.clone(),
        })
        .collect();
    listed.sort_by(|a, b| version::compare(&b.version, &a.version).then_with(|| a.name.cmp(&b.name)));
    listed.dedup();
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(names: &[(&str, &str)]) -> Vec<Offer> {
        names
            .iter()
            .map(|(name, version)| Offer {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                sha256: format!("of {name} {version}"),
            })
            .collect()
    }

    #[test]
    fn the_newest_of_a_series_comes_first() {
        let offers = offers(&[
            ("linux-image-6.1-cloud-amd64", "6.1.190-1"),
            ("linux-image-6.1.0-0.deb11.52-cloud-amd64", "6.1.176-1~deb11u1"),
            ("linux-image-6.1.0-56-cloud-amd64", "6.1.187-1"),
            ("linux-image-6.1.0-9-cloud-amd64", "6.1.27-1"),
            ("linux-image-6.12.9+deb13-cloud-amd64", "6.12.9-1"),
            ("linux-image-6.12.117+deb13-cloud-amd64", "6.12.117-1"),
            ("linux-image-6.12.117+deb13-amd64", "6.12.117-1"),
            ("linux-image-6.12.117+deb13-cloud-amd64-dbg", "6.12.117-1"),
            ("linux-image-6.12.117+deb13-cloud-amd64-unsigned", "6.12.117-1"),
            ("linux-image-6.12.117+deb12-cloud-amd64", "6.12.117-1~bpo12+1"),
            ("linux-image-cloud-amd64", "6.12.117-1"),
        ]);
        let listed = list(&offers, Arch::X86_64);
        let of_series = |series: &str| -> Vec<&str> {
            let found = listed.iter().filter(|kernel| series_of(kernel, Arch::X86_64) == Some(series));
            found.map(|kernel| kernel.version.as_str()).collect()
        };
        assert_eq!(of_series("6.1"), ["6.1.187-1", "6.1.176-1~deb11u1", "6.1.27-1"]);
        assert_eq!(of_series("6.12"), ["6.12.117-1", "6.12.117-1~bpo12+1", "6.12.9-1"]);
        assert_eq!(listed.len(), 6);
    }

    #[test]
    fn an_image_that_only_asks_for_the_binary_is_left_out() {
        let offers = offers(&[
            ("linux-image-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1"),
            ("linux-binary-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1"),
            ("linux-image-6.18.15+deb13-cloud-amd64", "6.18.15-1~bpo13+1"),
        ]);
        let names: Vec<String> = list(&offers, Arch::X86_64).into_iter().map(|kernel| kernel.name).collect();
        assert_eq!(names, ["linux-binary-7.3.4+deb13-cloud-amd64", "linux-image-6.18.15+deb13-cloud-amd64"]);
    }
}
