//! An apt of our own: it reads the mirrors that the machine's apt uses, and keeps its lists and what it downloads
//! in ioscope's cache directory. The machine's own packages are only looked at, nothing is installed, and no
//! root is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{output, run, which};

/// What signs Debian's packages. From the package debian-archive-keyring, which Debian always has.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What dpkg knows of the machine.
const STATUS: &str = "/var/lib/dpkg/status";

/// Where a suite comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archive {
    Main,
    Security,
}

/// A part of Debian, by its name in a line of sources.list.
pub(super) type Suite = (Archive, &'static str);

/// What is installed, as far as this apt knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Installed {
    /// Nothing: only single packages are taken.
    Nothing,
    /// What the machine has: only what it lacks is taken.
    Machine,
}

/// The mirrors of the machine's own apt.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: Option<String>,
}

impl Mirrors {
    /// Those that the machine's sources name.
    fn of_machine() -> Result<Self> {
        let mut command = Command::new("apt-get");
        command.args(["indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE)"]);
        let text = output(command.arg("Created-By: Packages"))?;
        Self::parse(&text).context(
            "the machine's apt sources name no mirror of Debian: `apt-get indextargets` lists what they name",
        )
    }

    /// From lines of a repository and the release that it is asked for.
    fn parse(targets: &str) -> Option<Self> {
        const RELEASES: [&str; 5] = ["bullseye", "bookworm", "trixie", "forky", "sid"];
        let find = |suffix: &str| {
            targets.lines().find_map(|line| {
                let (mirror, release) = line.split_once(' ')?;
                let release = release.strip_suffix(suffix)?;
                RELEASES.contains(&release).then(|| mirror.to_owned())
            })
        };
        Some(Self { main: find("")?, security: find("-security") })
    }

    /// A line of sources.list; none for a part that the machine knows no mirror of.
    fn line(&self, (archive, suite): Suite, architecture: &str) -> Option<String> {
        let mirror = match archive {
            Archive::Main => &self.main,
            Archive::Security => self.security.as_ref()?,
        };
        Some(format!("deb [arch={architecture} signed-by={KEYRING}] {mirror} {suite} main\n"))
    }
}

/// A package that can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) name: String,
    pub(super) version: String,
    /// The checksum of its file, which apt checks after the download.
    pub(super) sha256: String,
}

/// An apt with a state of its own.
pub(super) struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// Makes one in `directory`, for an architecture by Debian's name, which knows these parts of Debian.
    pub(super) fn new(
        directory: &Path,
        architecture: &str,
        suites: &[Suite],
        installed: Installed,
    ) -> Result<Self> {
        if which("apt-get").is_none() {
            bail!("QEMU and kernels are fetched with apt-get from Debian, which this machine lacks");
        }
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: it is in the package debian-archive-keyring");
        }
        let mirrors = Mirrors::of_machine()?;
        for part in ["state/lists/partial", "cache/archives/partial", "etc/preferences.d"] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let status = directory.join("state/status");
        match installed {
            Installed::Nothing => fs::write(&status, "")?,
            Installed::Machine => fs::copy(STATUS, &status).map(|_| ()).context(STATUS)?,
        }
        let sources: String = suites.iter().filter_map(|suite| mirrors.line(*suite, architecture)).collect();
        fs::write(directory.join("etc/sources.list"), sources)?;
        let apt = Self { directory: directory.to_owned() };
        fs::write(apt.configuration(), configuration(directory, architecture))?;
        Ok(apt)
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("apt.conf")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.configuration()).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Asks the mirrors what they have. A part of Debian that a mirror lacks is no error.
    pub(super) fn update(&self) -> Result<()> {
        run(self.command("apt-get").args(["update", "--quiet", "--quiet"]))
    }

    /// The packages whose names begin like this, in all versions that can be had.
    pub(super) fn offers(&self, prefix: &str) -> Result<Vec<Offer>> {
        let names = output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        let names: Vec<&str> = names.lines().collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        Ok(parse_offers(&output(self.command("apt-cache").arg("show").args(names))?))
    }

    /// Downloads a package; returns its file.
    pub(super) fn download(&self, offer: &Offer, directory: &Path) -> Result<PathBuf> {
        fs::create_dir_all(directory)?;
        let mut command = self.command("apt-get");
        command.args(["download", "--quiet", "--quiet"]).arg(format!("{}={}", offer.name, offer.version));
        run(command.current_dir(directory))?;
        packages_in(directory)?.pop().context("apt-get download wrote no package")
    }

    /// Downloads packages and what they need beyond what is installed; returns their files.
    pub(super) fn download_with_dependencies(
        &self,
        names: &[&str],
        release: Option<&str>,
    ) -> Result<Vec<PathBuf>> {
        let mut command = self.command("apt-get");
        command.args([
            "install",
            "--download-only",
            "--yes",
            "--quiet",
            "--quiet",
            "--no-install-recommends",
        ]);
        if let Some(release) = release {
            command.args(["--target-release", release]);
        }
        run(command.args(names))?;
        packages_in(&self.directory.join("cache/archives"))
    }

    /// Forgets what was downloaded.
    pub(super) fn clean(&self) -> Result<()> {
        run(self.command("apt-get").arg("clean"))
    }
}

/// Everything of apt's is below the directory; what the machine's own apt is configured with does not count, but
/// for what says how the mirrors are reached.
fn configuration(directory: &Path, architecture: &str) -> String {
    let directory = directory.display();
    format!(
        "Dir::State \"{directory}/state\";\n\
         Dir::State::status \"{directory}/state/status\";\n\
         Dir::Cache \"{directory}/cache\";\n\
         Dir::Etc::sourcelist \"{directory}/etc/sources.list\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::Etc::preferences \"-\";\n\
         Dir::Etc::preferencesparts \"{directory}/etc/preferences.d\";\n\
         APT::Architecture \"{architecture}\";\n\
         #clear APT::Architectures;\n\
         APT::Architectures {{ \"{architecture}\"; }};\n\
         APT::Sandbox::User \"root\";\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         #clear DPkg::Post-Invoke;\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::Retries \"3\";\n"
    )
}

/// Unpacks packages below a directory.
pub(super) fn unpack(packages: &[PathBuf], to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for package in packages {
        output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(to))?;
    }
    Ok(())
}

fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            files.push(path);
        }
    }
    Ok(files)
}

/// From what `apt-cache show` writes: paragraphs of fields.
fn parse_offers(text: &str) -> Vec<Offer> {
    let parse = |paragraph: &str| {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
        };
        Some(Offer { name: field("Package")?, version: field("Version")?, sha256: field("SHA256")? })
    };
    text.split("\n\n").filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_those_of_the_machine() {
        let targets = "https://other.example/packages/ stable\n\
                       http://mirror.example/debian/ bookworm\n\
                       http://mirror.example/debian/ bookworm-updates\n\
                       http://mirror.example/debian-security/ bookworm-security\n";
        let mirrors = Mirrors::parse(targets).expect("both are there");
        assert_eq!(mirrors.main, "http://mirror.example/debian/");
        let line = mirrors.line((Archive::Security, "trixie-security"), "amd64").expect("it is known");
        assert_eq!(
            line,
            "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
             http://mirror.example/debian-security/ trixie-security main\n"
        );
        assert_eq!(Mirrors::parse("https://other.example/packages/ stable\n"), None);
        let main = Mirrors::parse("http://mirror.example/debian/ trixie\n").expect("one is enough");
        assert_eq!(main.line((Archive::Security, "trixie-security"), "amd64"), None);
    }

    #[test]
    fn offers_are_read_from_paragraphs() {
        let text = "Package: linux-image-a\nVersion: 6.1.1-1\nDescription: a\n b\nSHA256: 12ab\n\n\
                    Package: linux-image-b\nVersion: 2\n\nPackage: c\nVersion: 3\nSHA256: ff\n";
        let offers = parse_offers(text);
        assert_eq!(offers.len(), 2);
        assert_eq!(
            (offers[0].name.as_str(), offers[0].version.as_str(), offers[0].sha256.as_str()),
            ("linux-image-a", "6.1.1-1", "12ab")
        );
        assert_eq!(offers[1].name, "c");
    }
}
