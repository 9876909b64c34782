//! A client of plain HTTP that hides nothing: what is sent and what comes back are the bytes of the wire.

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// With a header, by the names of its columns.
    pub(crate) fn csv(&self) -> Vec<Vec<(String, String)>> {
        rows(&self.body)
    }
}

/// The rows of a CSV with a header, by the names of its columns.
pub(crate) fn rows(text: &str) -> Vec<Vec<(String, String)>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let named = |row: csv::StringRecord| names.iter().map(str::to_owned).zip(row.iter().map(str::to_owned)).collect();
    reader.records().map(|row| named(row.unwrap())).collect()
}

/// A connection that is used for one question after the other.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    /// Sends what is given, and reads one answer; `has_body` is false for one to HEAD.
    pub(crate) async fn say(&mut self, request: &[u8], has_body: bool) -> std::io::Result<Answer> {
        self.0.get_mut().write_all(request).await?;
        self.answer(has_body).await
    }

    pub(crate) async fn answer(&mut self, has_body: bool) -> std::io::Result<Answer> {
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
        let mut answer = Answer { status, headers, body: String::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        if has_body && status != 304 && status != 204 {
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await?;
            answer.body = String::from_utf8(body).unwrap();
        }
        Ok(answer)
    }

    pub(crate) async fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let lines: String = headers.iter().map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
        let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
        self.say(request.as_bytes(), true).await.unwrap()
    }
}

/// One question on a connection of its own.
pub(crate) async fn get(address: SocketAddr, target: &str) -> Answer {
    get_with(address, target, &[]).await
}

/// The same with headers.
pub(crate) async fn get_with(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Answer {
    Connection::open(address).await.get(target, headers).await
}
