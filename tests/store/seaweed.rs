//! A real S3 server for tests: SeaweedFS, one for all test processes of a user.
//!
//! The first process that wants it starts it; it lives until no process wants it any more. That is told by file locks, which end with their
//! holders however these end: every user holds `users` shared; a watcher that was started with the server takes it exclusively once nobody
//! else does, and kills the server. Tests keep apart by the prefix of their keys.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bygone::store::settings::{AccessKey, S3Settings};
use rustix::fs::FlockOperation;

/// A running server.
pub(crate) struct Seaweed {
    pub(crate) http: String,
    /// The same objects over TLS, with a certificate of [`Seaweed::ca_file`]'s authority.
    pub(crate) https: String,
    pub(crate) ca_file: PathBuf,
    /// Held as long as this process lives.
    _user: File,
}

pub(crate) const BUCKET: &str = "bygone-test";
pub(crate) const ACCESS_KEY: &str = "test-access-key";
pub(crate) const SECRET_KEY: &str = "test-secret-key";

/// Tries the first free one of these; each needs its next four ports, and those plus 10,000.
const PORTS: std::ops::Range<u16> = 21_000..21_100;

/// Kills the server once nobody has used it for some seconds. Takes the lock twice, so that a gap between two test processes is no reason.
const WATCHER: &str = r#"
"$@" >server.log 2>&1 &
server=$!
while kill -0 $server 2>/dev/null; do
    sleep 5
    flock -n users true || continue
    sleep 5
    exec 9<users
    if flock -n 9; then
        kill -9 $server
        wait $server
        rm -rf data ports
        exit
    fi
    exec 9<&-
done
"#;

/// The server. Panics with what is missing where it cannot be had.
pub(crate) fn seaweed() -> &'static Seaweed {
    static SERVER: LazyLock<Seaweed> = LazyLock::new(Seaweed::start_or_join);
    &SERVER
}

/// Settings for a place of one's own in it.
pub(crate) fn settings(prefix: &str) -> S3Settings {
    let mut settings = S3Settings::new(BUCKET);
    settings.prefix = format!("{prefix}-{}-{:08x}", std::process::id(), getrandom::u32().unwrap());
    settings.endpoint = Some(seaweed().http.clone());
    settings.path_style = true;
    settings.access_key = Some(AccessKey { id: ACCESS_KEY.to_owned(), secret: SECRET_KEY.into() });
    settings
}

/// A program that `scripts/install-object-stores` puts there.
pub(crate) fn tool(name: &str) -> PathBuf {
    let tools = std::env::var_os("BYGONE_TEST_TOOLS").unwrap_or_else(|| "/opt/bygone-test".into());
    let path = Path::new(&tools).join("bin").join(name);
    assert!(path.exists(), "{} is missing: run scripts/install-object-stores first", path.display());
    path
}

impl Seaweed {
    fn start_or_join() -> Self {
        let dir = std::env::temp_dir().join(format!("bygone-test-seaweed-{}", rustix::process::getuid().as_raw()));
        fs_err::create_dir_all(&dir).unwrap();
        let user = lock(&dir.join("users"), FlockOperation::LockShared);
        let _starter = lock(&dir.join("start"), FlockOperation::LockExclusive);
        let running = fs_err::read_to_string(dir.join("ports")).ok().and_then(|port| port.parse().ok()).filter(|port| is_up(port + 3));
        let port = running.unwrap_or_else(|| start(&dir));
        Seaweed {
            http: format!("http://127.0.0.1:{}", port + 3),
            https: format!("https://127.0.0.1:{}", port + 4),
            ca_file: dir.join("ca.pem"),
            _user: user,
        }
    }
}

fn lock(path: &Path, how: FlockOperation) -> File {
    let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
    rustix::fs::flock(&file, how).unwrap();
    file
}

fn start(dir: &Path) -> u16 {
    let weed = tool("weed");
    let _old = fs_err::remove_dir_all(dir.join("data"));
    fs_err::create_dir(dir.join("data")).unwrap();
    make_certificates(dir);
    let identity = format!(
        r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],"actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
    );
    fs_err::write(dir.join("s3.json"), identity).unwrap();
    let port = PORTS.step_by(5).find(|port| are_free(*port)).expect("five free ports between 21000 and 21100, and 10,000 above them");
    let plain = ["server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-s3.config=s3.json", "-s3.iam=false"];
    let small = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=1000", "-master.telemetry=false"];
    let tls = ["-s3.cert.file=server.pem", "-s3.key.file=server.key"];
    let ports = ["master.port", "volume.port", "filer.port", "s3.port", "s3.port.https"];
    let ports = ports.iter().zip(port..).map(|(name, port)| format!("-{name}={port}"));
    let mut watcher = Command::new("setsid");
    watcher.args(["--fork", "sh", "-c", WATCHER, "watcher"]).arg(weed).args(plain).args(small).args(tls).args(ports);
    watcher.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(watcher.status().expect("setsid and sh, of Debian's util-linux and dash").success());
    wait_until_up(dir, port);
    fs_err::write(dir.join("ports"), port.to_string()).unwrap();
    port
}

/// An authority of our own and a certificate for 127.0.0.1.
fn make_certificates(dir: &Path) {
    let subject_names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
    let openssl = |arguments: &[&str]| {
        let ran = Command::new("openssl").args(arguments).current_dir(dir).output().expect("openssl is missing: install it");
        assert!(ran.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    for (name, subject) in [("ca", "/CN=Bygone test authority"), ("other-ca", "/CN=Another authority")] {
        let (key_file, pem) = (format!("{name}.key"), format!("{name}.pem"));
        let files = ["-keyout", &key_file, "-out", &pem, "-subj", subject, "-days", "2"];
        openssl(&[&["req", "-x509"], &key[..], &files].concat());
    }
    let request = ["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1", "-addext", subject_names];
    openssl(&[&["req"], &key[..], &request].concat());
    let signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-copy_extensions", "copy"];
    openssl(&[&["x509", "-req", "-in", "server.csr", "-out", "server.pem"], &signer[..]].concat());
}

fn are_free(first: u16) -> bool {
    let ports = (first..first + 5).flat_map(|port| [port, port + 10_000]);
    let listeners: Vec<_> = ports.map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
    listeners.iter().all(Result::is_ok)
}

fn wait_until_up(dir: &Path, port: u16) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !(is_up(port + 3) && make_bucket(port + 2)) {
        let log = || fs_err::read_to_string(dir.join("server.log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "SeaweedFS does not come up:\n{}", log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The server answers, even if only that we are nobody.
fn is_up(s3_port: u16) -> bool {
    request(s3_port, "GET / HTTP/1.0\r\n\r\n").is_some_and(|answer| answer.contains(" 403 "))
}

/// A bucket is a folder of the filer.
fn make_bucket(filer_port: u16) -> bool {
    let made = request(filer_port, &format!("POST /buckets/{BUCKET}/ HTTP/1.0\r\nContent-Length: 0\r\n\r\n"));
    made.is_some_and(|answer| answer.starts_with("HTTP/1.0 2") || answer.starts_with("HTTP/1.1 2"))
}

fn request(port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).ok()?;
    Some(answer)
}
