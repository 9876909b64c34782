//! A minimal client of plain HTTP that sends and returns the exact bytes of requests and responses.

#![allow(dead_code, reason = "each test binary needs only a part")]
#![allow(clippy::unwrap_used, reason = "a failed helper must fail the test")]

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Header names in lower case, with their values.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Parses a CSV body with a header; each cell has the name of its column.
    pub(crate) fn csv(&self) -> Vec<Vec<(String, String)>> {
        rows(&self.body)
    }
}

/// Parses a CSV with a header; each cell has the name of its column.
pub(crate) fn rows(text: &str) -> Vec<Vec<(String, String)>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let named = |row: csv::StringRecord| names.iter().map(str::to_owned).zip(row.iter().map(str::to_owned)).collect();
    reader.records().map(|row| named(row.unwrap())).collect()
}

/// A connection that is used for several requests.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    /// Sends bytes and reads one response; `has_body` is false for the response to HEAD.
    pub(crate) async fn send(&mut self, request: &[u8], has_body: bool) -> std::io::Result<Response> {
        self.0.get_mut().write_all(request).await?;
        self.read_response(has_body).await
    }

    pub(crate) async fn read_response(&mut self, has_body: bool) -> std::io::Result<Response> {
        let mut line = String::new();
        let mut status = 0;
        let mut headers = Vec::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            match text.split_once(": ") {
                Some((name, value)) if status != 0 => headers.push((name.to_ascii_lowercase(), value.to_owned())),
                _ => status = text.split(' ').nth(1).unwrap().parse().unwrap(),
            }
        }
        let mut response = Response { status, headers, body: String::new() };
        let length = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        if has_body && status != 304 && status != 204 {
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await?;
            response.body = String::from_utf8(body).unwrap();
        }
        Ok(response)
    }

    pub(crate) async fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Response {
        let lines: String = headers.iter().map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
        let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
        self.send(request.as_bytes(), true).await.unwrap()
    }
}

/// Sends one request on a new connection.
pub(crate) async fn get(address: SocketAddr, target: &str) -> Response {
    get_with(address, target, &[]).await
}

/// Sends one request with headers on a new connection.
pub(crate) async fn get_with(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Response {
    Connection::open(address).await.get(target, headers).await
}
