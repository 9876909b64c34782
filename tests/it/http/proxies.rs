//! The page, gRPC-Web and entity tags behind nginx and Apache, each with the plainest configuration that an
//! administrator would write.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::skipped::skipped;
use crate::support::{TestServer, tick};

const GRPC_WEB: &str = "application/grpc-web+proto";
const WATCH: &str = "/silkrate.v1.RateService/WatchLatestRates";
/// The frame of an empty gRPC message.
const EMPTY_MESSAGE: &[u8] = &[0; 5];
/// Maximum time from a stored tick to its event in the client. A proxy that collects events until its buffer is full
/// takes minutes.
const EVENT_TIME_MAX: Duration = Duration::from_secs(5);
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// A running proxy. Dropping this value kills its process.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Proxy {
    /// Starts a proxy; none if the program is not installed. The last of the arguments is the flag of the
    /// configuration file. `configure` returns the text of that file for a directory and a port.
    async fn start(program: &str, arguments: &[&str], configure: impl Fn(&Path, u16) -> String) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        // The proxy cannot report a port that the system chose, so another program could take the port in between.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let file = directory.path().join("proxy.conf");
        std::fs::write(&file, configure(directory.path(), port)).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).arg(&file);
        let child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                skipped(&format!("{program} is not installed, so the server behind it is not tested"));
                return None;
            }
            Err(error) => panic!("{program}: {error}"),
        };
        let proxy = Self { child, address: (Ipv4Addr::LOCALHOST, port).into(), _directory: directory };
        let deadline = Instant::now() + START_TIME_MAX;
        while TcpStream::connect(proxy.address).await.is_err() {
            assert!(Instant::now() < deadline, "{program} does not listen");
            sleep(Duration::from_millis(20)).await;
        }
        Some(proxy)
    }

    async fn nginx(upstream: SocketAddr) -> Option<Self> {
        let configure = |directory: &Path, port: u16| {
            let directory = directory.display();
            let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|name| format!("{name}_temp_path {directory}/{name};\n"))
                .concat();
            format!(
                "daemon off; master_process off; pid {directory}/pid; error_log {directory}/log;\n\
                 events {{}}\n\
                 http {{ access_log off; gzip on; gzip_types application/json;\n{temporary}\
                 server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{upstream}; }} }} }}\n"
            )
        };
        Self::start("/usr/sbin/nginx", &["-c"], configure).await
    }

    /// Apache that compresses text and JSON, as Debian configures it.
    async fn apache(upstream: SocketAddr) -> Option<Self> {
        let configure = |directory: &Path, port: u16| {
            let directory = directory.display();
            let modules: String = ["mpm_event", "authz_core", "filter", "deflate", "proxy", "proxy_http"]
                .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
                .concat();
            format!(
                "ServerRoot {directory}\nServerName localhost\nDefaultRuntimeDir {directory}\nPidFile {directory}/pid\n\
                 ErrorLog {directory}/log\nListen 127.0.0.1:{port}\n{modules}User www-data\nGroup www-data\n\
                 AddOutputFilterByType DEFLATE text/html text/plain application/json\nProxyPass / http://{upstream}/\n"
            )
        };
        Self::start("/usr/sbin/apache2", &["-X", "-f"], configure).await
    }

    /// Sends a request on a new connection and returns the connection.
    async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Stream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let headers: String = headers.iter().map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        socket.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        Stream { socket, received: Vec::new() }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The process has already exited if it failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response that arrives piece by piece.
struct Stream {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Stream {
    /// Reads until the response contains `text`; panics after [`EVENT_TIME_MAX`].
    async fn read_until(&mut self, text: &str) {
        let contains = |received: &[u8]| received.windows(text.len()).any(|window| window == text.as_bytes());
        let reading = async {
            while !contains(&self.received) {
                assert!(
                    self.socket.read_buf(&mut self.received).await.unwrap() > 0,
                    "the response ends before {text:?}"
                );
            }
        };
        timeout(EVENT_TIME_MAX, reading).await.unwrap_or_else(|_| panic!("no {text:?} within {EVENT_TIME_MAX:?}"));
    }

    /// Returns the headers, in lower case.
    async fn head(&mut self) -> String {
        self.read_until("\r\n\r\n").await;
        let received = String::from_utf8_lossy(&self.received);
        received.split_once("\r\n\r\n").unwrap().0.to_lowercase()
    }
}

async fn serve() -> TestServer {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    server
}

/// Checks that a stream behind a proxy delivers the state, then two ticks, each as soon as it is stored.
async fn check_stream(server: &TestServer, mut stream: Stream) {
    stream.read_until("0.01144").await;
    for (second, rate) in [(-30, "0.01145"), (-20, "0.01146")] {
        server.store(&[tick("KGS/USD", second, rate)]).await;
        stream.read_until(rate).await;
    }
}

#[tokio::test]
async fn live_stream_behind_nginx_delivers_each_event_at_once() {
    let server = serve().await;
    let Some(proxy) = Proxy::nginx(server.http_addr).await else { return };
    check_stream(&server, proxy.send("GET", "/live", &[], b"").await).await;
}

#[tokio::test]
async fn live_stream_behind_apache_delivers_each_event_at_once() {
    let server = serve().await;
    let Some(proxy) = Proxy::apache(server.http_addr).await else { return };
    check_stream(&server, proxy.send("GET", "/live", &[], b"").await).await;
}

#[tokio::test]
async fn grpc_web_stream_behind_nginx_delivers_each_message_at_once() {
    let server = serve().await;
    let Some(proxy) = Proxy::nginx(server.addr).await else { return };
    check_stream(&server, proxy.send("POST", WATCH, &[("content-type", GRPC_WEB)], EMPTY_MESSAGE).await).await;
}

#[tokio::test]
async fn grpc_web_stream_behind_apache_delivers_each_message_at_once() {
    let server = serve().await;
    let Some(proxy) = Proxy::apache(server.addr).await else { return };
    check_stream(&server, proxy.send("POST", WATCH, &[("content-type", GRPC_WEB)], EMPTY_MESSAGE).await).await;
}

#[tokio::test]
async fn tag_that_apache_marked_as_compressed_is_accepted_back() {
    let server = serve().await;
    let Some(proxy) = Proxy::apache(server.http_addr).await else { return };
    let first = proxy.send("GET", "/v1/latest", &[], b"").await.head().await;
    assert!(first.contains("content-encoding: gzip"), "{first}");
    let tag = first.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert!(tag.ends_with("-gzip\""), "{tag}");
    let again = proxy.send("GET", "/v1/latest", &[("if-none-match", tag)], b"").await.head().await;
    assert!(again.starts_with("http/1.1 304 "), "{again}");
}
