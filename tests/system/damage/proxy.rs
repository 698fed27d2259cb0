//! Stands between us and an HTTP service, counts what is asked for, and answers 503 in its place when told to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Passes bytes on. Its threads end with the test process.
pub(crate) struct Proxy {
    port: u16,
    refusing: Arc<AtomicBool>,
    ranges: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Listens on a free port for the service at `url` (`http://127.0.0.1:PORT`).
    pub(crate) fn start(url: &str) -> Proxy {
        let service = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let refusing = Arc::new(AtomicBool::new(false));
        let ranges = Arc::<Mutex<Vec<String>>>::default();
        let (flag, count) = (refusing.clone(), ranges.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let (service, flag, count) = (service.clone(), flag.clone(), count.clone());
                std::thread::spawn(move || serve(&client, &service, &flag, &count));
            }
        });
        Proxy { port, refusing, ranges }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests for parts of objects since the last call: their first lines.
    pub(crate) fn take_ranges(&self) -> Vec<String> {
        std::mem::take(&mut self.ranges.lock().expect("nobody panics while holding it"))
    }

    /// From now on: 503 for every request, or none. Connections that are open are closed when they next say something.
    pub(crate) fn refuse(&self, on: bool) {
        self.refusing.store(on, Ordering::SeqCst);
    }
}

fn serve(client: &TcpStream, service: &str, refusing: &AtomicBool, ranges: &Mutex<Vec<String>>) {
    if refusing.load(Ordering::SeqCst) {
        return refuse(client);
    }
    let Ok(server) = TcpStream::connect(service) else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| pass(&server, client, &|_| false));
        let stop = |request: &[u8]| {
            let head = String::from_utf8_lossy(request).to_lowercase();
            if head.contains("\nrange: bytes=") {
                ranges.lock().expect("nobody panics while holding it").extend(head.lines().next().map(str::to_owned));
            }
            refusing.load(Ordering::SeqCst)
        };
        pass(client, &server, &stop);
    });
}

/// Copies until one side ends or `stop`; then ends both.
fn pass(mut from: &TcpStream, mut to: &TcpStream, stop: &dyn Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if stop(&buffer[..len]) || to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _already_closed = stream.shutdown(Shutdown::Both);
    }
}

/// Hears the request out as far as it came, and says no.
fn refuse(mut client: &TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    let _no_time_limit = client.set_read_timeout(Some(Duration::from_millis(200)));
    let _request = client.read(&mut buffer);
    let _gone = client.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    while let Ok(1..) = client.read(&mut buffer) {}
}
