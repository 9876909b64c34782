//! A proxy in front of an object store that drops, cuts, refuses and holds requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Nothing: it is forwarded.
    None,
    /// The connection is closed before the request is forwarded.
    Drop,
    /// The request is forwarded, and the connection is closed before the response.
    DropResponse,
    /// A part of the response arrives.
    Cut,
    /// The status is returned, and the request is not forwarded.
    Status(u16),
    /// The request is held and never answered.
    Hold,
    /// The request is forwarded and never answered.
    HoldResponse,
}

/// A request: its number, counted from 0, its method and its path.
pub(crate) struct Seen {
    pub(crate) number: u64,
    pub(crate) method: String,
    pub(crate) path: String,
}

type Rule = Box<dyn Fn(&Seen) -> Fault + Send + Sync>;

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    rule: Arc<Mutex<Rule>>,
    count: Arc<AtomicU64>,
    /// Receives the path of each held request.
    pub(crate) held: mpsc::UnboundedReceiver<String>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| Fault::None)));
        let count = Arc::new(AtomicU64::new(0));
        let (sender, held) = mpsc::unbounded_channel();
        let (shared, counted) = (Arc::clone(&rule), Arc::clone(&count));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (rule, count, sender) = (Arc::clone(&shared), Arc::clone(&counted), sender.clone());
                // A connection that breaks is a part of the test.
                tokio::spawn(async move { drop(forward(client, target, &rule, &count, &sender).await) });
            }
        });
        Self { address, rule, count, held }
    }

    /// Decides what happens to the next requests, and counts them from 0.
    pub(crate) fn set(&self, rule: impl Fn(&Seen) -> Fault + Send + Sync + 'static) {
        self.count.store(0, Ordering::SeqCst);
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// The number of requests since [`Proxy::set`].
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}

async fn forward(
    mut client: TcpStream,
    target: SocketAddr,
    rule: &Mutex<Rule>,
    count: &AtomicU64,
    held: &mpsc::UnboundedSender<String>,
) -> std::io::Result<()> {
    loop {
        let Some(request) = read_message(&mut client).await? else { return Ok(()) };
        let head = String::from_utf8_lossy(&request).into_owned();
        let mut words = head.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        let seen = Seen { number: count.fetch_add(1, Ordering::SeqCst), method, path };
        let fault = rule.lock().unwrap()(&seen);
        if fault == Fault::Drop {
            return Ok(());
        }
        if let Fault::Status(status) = fault {
            let response = format!("HTTP/1.1 {status} Fault\r\ncontent-length: 0\r\n\r\n");
            client.write_all(response.as_bytes()).await?;
            continue;
        }
        if fault == Fault::Hold {
            let _ = held.send(seen.path.clone());
            std::future::pending::<()>().await;
        }
        let mut server = TcpStream::connect(target).await?;
        server.write_all(&request).await?;
        // The response to HEAD has a length and no body. This proxy is not asked for one.
        let response = read_message(&mut server).await?.unwrap_or_default();
        match fault {
            Fault::DropResponse => return Ok(()),
            Fault::Cut => return client.write_all(&response[..response.len() * 2 / 3]).await,
            Fault::HoldResponse => {
                let _ = held.send(seen.path);
                std::future::pending::<()>().await;
            }
            Fault::None | Fault::Drop | Fault::Status(_) | Fault::Hold => client.write_all(&response).await?,
        }
    }
}

/// Reads a message with its body, whose length the header states. Returns `None` at the end of the connection.
async fn read_message(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length: Option<usize> =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let is_chunked = head.contains("transfer-encoding: chunked");
            let is_whole = match length {
                Some(length) => bytes.len() >= end + 4 + length,
                None if is_chunked => bytes.ends_with(b"0\r\n\r\n"),
                None => true,
            };
            if is_whole {
                return Ok(Some(bytes));
            }
        }
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok((!bytes.is_empty()).then_some(bytes));
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
}
