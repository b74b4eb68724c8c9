//! The server programs that the tests run against: those of this machine, and small ones in `tests/programs`,
//! built on the way. Each listens on 127.0.0.1 only.
//!
//! `IOSCOPE_TEST_PYTHON` names a Python that has uvloop and gevent, where `python3` has not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::load::Protocol;
use super::server::{Readiness, Server, free_port};

/// What a program needs and this machine has not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) String);

/// How many worker processes an nginx that has a master has.
const NGINX_WORKERS: usize = 2;

/// A server program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Asyncio,
    Uvloop,
    Gevent,
    /// Python on a bare `select.epoll`.
    PythonEpoll,
    Node,
    Go,
    JavaNio,
    Netty,
    Asio,
    TokioMultiThread,
    TokioCurrentThread,
    /// tokio with other thread names, its symbols stripped.
    TokioStripped,
    Nginx,
    /// nginx as it is mostly run: a master and its workers, two of them, each with its own loop.
    NginxWorkers,
    Redis,
    Memcached,
    Haproxy,
}

impl Program {
    /// What it speaks.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Nginx | Self::NginxWorkers | Self::Haproxy => Protocol::Http,
            Self::Redis => Protocol::Redis,
            Self::Memcached => Protocol::Memcached,
            _ => Protocol::Lines,
        }
    }

    /// Whether it exits with 0 once it has handled its requests.
    pub(crate) fn exits(self) -> bool {
        self.protocol() == Protocol::Lines
    }

    /// Builds and starts it; where it exits, after so many requests.
    pub(crate) fn start(self, requests: usize) -> Result<Server, Missing> {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let port = free_port();
        let mut command = self.command(directory.path(), port)?;
        let readiness = if self.exits() { Readiness::Says } else { Readiness::Accepts };
        if self.exits() {
            command.arg(port.to_string()).arg(requests.to_string());
        }
        match self {
            Self::Uvloop => command.arg("uvloop"),
            Self::TokioCurrentThread | Self::TokioStripped => command.arg("current-thread"),
            _ => &mut command,
        };
        let server = Server::start(command, readiness, port, directory);
        match self {
            // It listens before it has them.
            Self::NginxWorkers => server.wait_for_children(NGINX_WORKERS),
            // A thread names itself when it first runs.
            Self::TokioMultiThread => server.wait_for_thread("tokio-rt-"),
            _ => {}
        }
        Ok(server)
    }

    /// The command up to the arguments that all test programs have in common.
    fn command(self, directory: &Path, port: u16) -> Result<Command, Missing> {
        match self {
            Self::Asyncio => python("echo_asyncio.py", "asyncio"),
            Self::Uvloop => python("echo_asyncio.py", "uvloop"),
            Self::Gevent => python("echo_gevent.py", "gevent"),
            Self::PythonEpoll => python("echo_epoll.py", "select"),
            Self::Node => {
                let mut command = found("node")?;
                command.arg(source("echo_node.js"));
                Ok(command)
            }
            Self::Go => {
                let output = directory.join("echo_go");
                build(found("go")?.arg("build").arg("-o").arg(&output).arg(source("echo_go.go")));
                Ok(Command::new(output))
            }
            Self::JavaNio => java(directory, "EchoNio", &[]),
            Self::Netty => java(directory, "EchoNetty", &netty()?),
            Self::Asio => {
                if !Path::new("/usr/include/asio.hpp").exists() {
                    return Err(Missing("asio.hpp (Debian: libasio-dev)".to_owned()));
                }
                let output = directory.join("echo_asio");
                build(found("g++")?.args(["-O1", "-s", "-o"]).arg(&output).arg(source("echo_asio.cpp")));
                Ok(Command::new(output))
            }
            Self::TokioMultiThread | Self::TokioCurrentThread => Ok(Command::new(example("tokio_echo"))),
            Self::TokioStripped => {
                let output = directory.join("server");
                build(found("strip")?.args(["--strip-all", "-o"]).arg(&output).arg(example("tokio_echo")));
                let mut command = Command::new(output);
                command.env("IOSCOPE_THREAD_NAME", "worker");
                Ok(command)
            }
            // One process: the loop is in the one that was started.
            Self::Nginx => nginx(directory, port, "master_process off;"),
            Self::NginxWorkers => nginx(directory, port, &format!("worker_processes {NGINX_WORKERS};")),
            Self::Redis => {
                let mut command = found("redis-server")?;
                let port = port.to_string();
                command.args([
                    "--bind",
                    "127.0.0.1",
                    "--port",
                    &port,
                    "--save",
                    "",
                    "--logfile",
                    "/dev/null",
                ]);
                command.arg("--dir").arg(directory);
                Ok(command)
            }
            Self::Memcached => {
                let mut command = found("memcached")?;
                command.args([
                    "-l",
                    "127.0.0.1",
                    "-U",
                    "0",
                    "-u",
                    "root",
                    "-t",
                    "1",
                    "-p",
                    &port.to_string(),
                ]);
                Ok(command)
            }
            Self::Haproxy => haproxy(directory, port),
        }
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

/// An example of this crate, built as the tests are.
fn example(name: &str) -> PathBuf {
    // target/PROFILE/deps/this-test → target/PROFILE/examples/name
    let test = std::env::current_exe().expect("the test has a path");
    let profile = test.ancestors().nth(2).expect("a test lies in the target directory");
    let path = profile.join("examples").join(name);
    // A run of one test builds no examples.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    build(Command::new(cargo).args([
        "build",
        "--quiet",
        "--package",
        env!("CARGO_PKG_NAME"),
        "--example",
        name,
    ]));
    path
}

/// The command, when it is in the search path or where Debian keeps servers.
fn found(name: &str) -> Result<Command, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let program = directories.find_map(|directory| Some(directory.join(name)).filter(|path| path.is_file()));
    program.map(Command::new).ok_or_else(|| Missing(name.to_owned()))
}

fn build(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

fn python(script: &str, module: &str) -> Result<Command, Missing> {
    let interpreter = || match std::env::var_os("IOSCOPE_TEST_PYTHON") {
        Some(python) => Ok(Command::new(python)),
        None => found("python3"),
    };
    let import = interpreter()?.args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    if !import.is_ok_and(|status| status.success()) {
        return Err(Missing(format!("a Python with {module} (IOSCOPE_TEST_PYTHON)")));
    }
    let mut command = interpreter()?;
    command.arg(source(script));
    Ok(command)
}

fn java(directory: &Path, class: &str, archives: &[PathBuf]) -> Result<Command, Missing> {
    let directories = [directory.to_owned()];
    let class_path = std::env::join_paths(directories.iter().chain(archives)).expect("no path has a colon");
    let mut compiler = found("javac")?;
    compiler.arg("-cp").arg(&class_path).arg("-d").arg(directory);
    build(compiler.arg(source(&format!("{class}.java"))));
    let mut command = found("java")?;
    command.arg("-cp").arg(class_path).arg(class);
    Ok(command)
}

fn netty() -> Result<Vec<PathBuf>, Missing> {
    let archive = |part| PathBuf::from(format!("/usr/share/java/netty-{part}.jar"));
    let archives: Vec<_> = ["common", "buffer", "resolver", "transport"].into_iter().map(archive).collect();
    if archives.iter().all(|archive| archive.exists()) {
        Ok(archives)
    } else {
        Err(Missing("Netty (Debian: libnetty-java)".to_owned()))
    }
}

fn nginx(directory: &Path, port: u16, processes: &str) -> Result<Command, Missing> {
    let mut command = found("nginx")?;
    let at = directory.display();
    let configuration = format!(
        "daemon off; {processes} pid {at}/pid; error_log stderr;
         events {{ worker_connections 64; }}
         http {{
             access_log off; keepalive_requests 1000000;
             client_body_temp_path {at}/1; proxy_temp_path {at}/2; fastcgi_temp_path {at}/3;
             uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;
             server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"pong\\n\"; }}
                      location /status {{ stub_status; }} }}
         }}"
    );
    command.args(["-e", "stderr", "-c"]).arg(written(directory, "nginx.conf", &configuration));
    Ok(command)
}

fn haproxy(directory: &Path, port: u16) -> Result<Command, Missing> {
    let mut command = found("haproxy")?;
    let configuration = format!(
        "global\n nbthread 1\n\
         defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 60s\n\
         frontend test\n bind 127.0.0.1:{port}\n \
         http-request return status 200 content-type text/plain string \"pong\\n\"\n"
    );
    command.args(["-q", "-db", "-f"]).arg(written(directory, "haproxy.cfg", &configuration));
    Ok(command)
}

fn written(directory: &Path, name: &str, content: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).expect("the temporary directory can be written");
    path
}
