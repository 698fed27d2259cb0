//! A service that speaks S3 and overwrites whatever it is told: `rclone serve s3`. Bygone must notice.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bygone::store::s3::S3Store;
use bygone::store::settings::{AccessKey, S3Settings};
use bygone::store::{StoreError, probe};

use crate::seaweed::tool;

struct Rclone {
    process: Child,
    port: u16,
    _data: tempfile::TempDir,
}

impl Rclone {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        fs_err::create_dir(data.path().join("bucket")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut rclone = Command::new(tool("rclone"));
        rclone.args(["serve", "s3", "--addr", &format!("127.0.0.1:{port}"), "--config", "/dev/null"]).arg(data.path());
        let process = rclone.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "rclone does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        Rclone { process, port, _data: data }
    }
}

impl Drop for Rclone {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _reaped = self.process.wait();
    }
}

#[test]
fn a_service_that_overwrites_is_refused_by_name() {
    let rclone = Rclone::start();
    let mut settings = S3Settings::new("bucket");
    settings.endpoint = Some(format!("http://127.0.0.1:{}", rclone.port));
    settings.path_style = true;
    settings.access_key = Some(AccessKey { id: "AK".to_owned(), secret: "SK".into() });
    let error = probe(&S3Store::open(&settings).unwrap()).unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused { store, what, .. } if store.contains("s3://bucket at http://127.0.0.1:") && what.contains("overwrites")),
        "{error}"
    );
}
