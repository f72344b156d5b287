//! The release build against real programs. Starts them, hands over to the script that looks, and stops them;
//! must not know what a page should show (`campaign_page.py` beside this crate does), nor what servers must have of the
//! spool (`campaign/spool.rs` does).

mod server;
mod servers;
mod spool;

use crate::cargo;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(10);

/// What the campaign needs beside Rust and Python, as program and Debian package.
const PROGRAMS: &[(&str, &str)] =
    &[("chromium", "chromium"), ("chromedriver", "chromium-driver"), ("python3", "python3-venv")];

/// Package, test, and the environment variable that says how much of it.
const LONG_TESTS: &[(&str, &str, &str, &str)] = &[
    ("graylogic", "program", "GRAYLOGIC_KILL_ROUNDS", "200"),
    ("graylogic-store", "model", "GRAYLOGIC_MODEL_CASES", "1500"),
    ("graylogic-store", "crash", "GRAYLOGIC_CRASH_SEEDS", "240"),
    ("graylogic-store", "damage", "GRAYLOGIC_FLIPS", "1000"),
    ("graylogic-influxdb", "cycles", "GRAYLOGIC_CYCLES", "1000"),
];
/// What `tools/read_store.py` needs.
const PYTHON_PACKAGES: &[&str] = &["pcodec==1.1.0", "numpy"];

/// Servers, as program and Debian package. Where they are missing they are unpacked into the campaign's folder:
/// installed they would be started, now and with the machine.
const SERVERS: [(&str, &str); 2] = [("victoria-metrics", "victoria-metrics"), ("influxd", "influxdb")];

/// The part that needs servers, alone.
pub(crate) fn run_spool(root: &Path) -> Result<(), String> {
    let data = TemporaryFolder::new()?;
    spool_and_servers(root, data.path())
}

/// Questions to servers and managing them; then the spool against servers that are killed.
fn spool_and_servers(root: &Path, folder: &Path) -> Result<(), String> {
    let mut build = cargo(root);
    build.args(["build", "--release", "--package", "graylogic-influxdb"]);
    for example in servers::ALL {
        build.args(["--example", example]);
    }
    crate::run("campaign: release build of the examples", &mut build)?;
    let examples = release_folder(root).join("examples");
    let [victoria_metrics, influxd] =
        SERVERS.map(|(program, package)| find_or_unpack(program, package, folder));
    let programs = server::Programs { victoria_metrics: victoria_metrics?, influxd: influxd? };
    servers::run(&servers::Examples { folder: &examples }, &programs, folder)?;
    spool::run(&examples.join("promises"), &programs, folder)
}

/// Where release builds are.
fn release_folder(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    root.join(target).join("release")
}

/// A program of Debian, installed or unpacked.
fn find_or_unpack(program: &str, package: &str, folder: &Path) -> Result<PathBuf, String> {
    if is_installed(program) {
        return Ok(program.into());
    }
    println!("campaign: unpacking {package}");
    let folder = folder.join(package);
    std::fs::create_dir_all(&folder).map_err(|e| format!("campaign: create {}: {e}", folder.display()))?;
    let download = || apt(&["-o", "APT::Sandbox::User=root", "download", package], &folder);
    // The lists may be missing or old; who is not root has to live with those that are there.
    download().or_else(|_| apt(&["update"], &folder).and_then(|()| download()))?;
    let mut unpack = Command::new("sh");
    unpack.current_dir(&folder).args(["-c", "dpkg-deb --extract *.deb ."]);
    crate::run("campaign: unpack", &mut unpack)?;
    let program = folder.join("usr").join("bin").join(program);
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!("campaign: {package} holds no {}", program.display()))
    }
}

fn apt(arguments: &[&str], folder: &Path) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-qq", "-o", "Acquire::Retries=3"])
        .args(arguments);
    crate::run("campaign: install", command.current_dir(folder).stdout(Stdio::null()))
}

/// Builds, fills a store with the shipped recordings, serves it, looks at the page, stops.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    install()?;
    crate::run(
        "campaign: release build",
        cargo(root).args(["build", "--release", "--package", "graylogic"]),
    )?;
    let program = release_folder(root).join("graylogic");

    long_tests(root)?;
    let data = TemporaryFolder::new()?;
    spool_and_servers(root, data.path())?;
    read_by_others(root, &program, data.path())?;
    let mut demo = Command::new(&program);
    demo.args(["demo", "--once", "--data"]).arg(data.path().join("store")).stdout(Stdio::null());
    crate::run("campaign: demo", &mut demo)?;

    let mut serve = Serve::start(&program, &data.path().join("store"))?;
    let script = root.join("xtask").join("campaign_page.py");
    let looked = crate::run("campaign: page", Command::new("python3").arg(script).arg(&serve.address));
    let stopped = serve.stop();
    looked.and(stopped)
}

/// The tests that take a number from the environment, with large ones.
fn long_tests(root: &Path) -> Result<(), String> {
    for (package, test, name, number) in LONG_TESTS {
        let mut command = cargo(root);
        command.args(["test", "--package", package, "--test", test]).env(name, number);
        command.args(["--", "--nocapture"]);
        crate::run(&format!("campaign: {name}={number}"), &mut command)?;
    }
    Ok(())
}

/// Reads a store with the script in `tools/`, which knows it from `docs/format.md` alone, and compares.
fn read_by_others(root: &Path, program: &Path, folder: &Path) -> Result<(), String> {
    let python = folder.join("python");
    let make = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.args(arguments).arg(&python).stdout(Stdio::null());
        crate::run("campaign: python environment", &mut command)
    };
    make(&["-m", "venv"])?;
    let python = python.join("bin").join("python");
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PYTHON_PACKAGES);
    crate::run("campaign: python packages", &mut install)?;
    let mut compare = Command::new("python3");
    compare.arg(root.join("xtask").join("campaign_format.py"));
    compare.arg(program).arg(root.join("tools").join("read_store.py")).arg(&python);
    crate::run("campaign: format", &mut compare)
}

/// Installs what is missing. A campaign that cannot run has failed: skipping would look like success.
fn install() -> Result<(), String> {
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !is_installed(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("campaign: installing {}", missing.join(" "));
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    let here = Path::new(".");
    apt(&["update"], here).and_then(|()| apt(&arguments, here)).map_err(|why| {
        format!(
            "{why}\ncampaign: {} must be installed; as root this installs them itself",
            missing.join(" and ")
        )
    })
}

fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// A running `graylogic serve`, killed when dropped so that no failure leaves it behind.
struct Serve {
    child: Child,
    address: String,
}

impl Serve {
    fn start(program: &Path, data: &Path) -> Result<Serve, String> {
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(data).args(["--port", &free_port()?.to_string()]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("campaign: start {command:?}: {error}"))?;
        let lines = child.stdout.take().map(BufReader::new);
        let mut serve = Serve { child, address: String::new() };
        let (sender, receiver) = mpsc::channel();
        // Reads on until the end: a program whose output nobody takes would stop at a full pipe.
        std::thread::spawn(move || {
            for line in lines.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on ") {
                    // The receiver is gone once the address is known; later lines are of no interest.
                    let _ = sender.send(address.trim().to_owned());
                }
            }
        });
        serve.address = receiver.recv_timeout(START_MAX).map_err(|_| {
            format!("campaign: serve did not say where it listens within {} s", START_MAX.as_secs())
        })?;
        Ok(serve)
    }

    /// Asks the program to end, as an init system does, and wants it to end well.
    fn stop(&mut self) -> Result<(), String> {
        let signal = format!("kill -TERM {}", self.child.id());
        crate::run("campaign: stop serve", Command::new("sh").args(["-c", &signal]))?;
        let start = Instant::now();
        while start.elapsed() < STOP_MAX {
            match self.child.try_wait() {
                Ok(Some(status)) => return ended_well(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(format!("campaign: wait for serve to end: {error}")),
            }
        }
        Err(format!("campaign: serve did not end within {} s of SIGTERM", STOP_MAX.as_secs()))
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // Both fail when the program has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ended_well(status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("campaign: serve ended with {status} after SIGTERM")) }
}

fn free_port() -> Result<u16, String> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("campaign: find a free port: {error}"))
}

/// A new folder below the system's temporary one, removed at the end.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> Result<TemporaryFolder, String> {
        let folder = std::env::temp_dir().join(format!("graylogic-campaign-{}", std::process::id()));
        std::fs::create_dir(&folder)
            .map_err(|error| format!("campaign: create {}: {error}", folder.display()))?;
        Ok(TemporaryFolder(folder))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What stays behind is in the system's temporary folder, which is cleared by the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
