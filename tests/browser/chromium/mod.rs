//! A headless Chromium, driven through `chromedriver`.

use std::fmt::Debug;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::skipped::skipped;

/// Far longer than anything here takes on a machine with other work.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a browser may take to end.
const GOODBYE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(15);

/// No sandbox, since tests may run as root in a container; nothing that talks to elsewhere.
const FLAGS: [&str; 8] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with one window; it ends when dropped.
pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Child,
    /// Where the driver listens.
    port: u16,
    session: String,
    _profile: TempDir,
}

/// A command of the driver beyond those that the client knows.
#[derive(Debug)]
struct Raw {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Raw {
    fn endpoint(&self, base_url: &url::Url, session_id: Option<&str>) -> Result<url::Url, url::ParseError> {
        base_url.join(&format!("session/{}/{}", session_id.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

impl Browser {
    /// None where Chromium or its driver is not installed, which is said.
    pub(crate) async fn start() -> Option<Self> {
        if !is_there("chromium") || !is_there("chromedriver") {
            skipped("no page is looked at, since chromium and chromedriver are not there (Debian: chromium-driver)");
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let mut driver =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(driver.stdout.take().unwrap());
        // It says so once it listens: "ChromeDriver was started successfully on port 12345."
        let port = tokio::task::spawn_blocking(move || {
            said.lines().map_while(Result::ok).find_map(|line| {
                line.strip_prefix("ChromeDriver was started successfully on port ")
                    .and_then(|rest| rest.trim_end_matches('.').parse::<u16>().ok())
            })
        });
        let port = port.await.unwrap().expect("chromedriver says where it listens");
        let user_data = format!("--user-data-dir={}", profile.path().display());
        let flags: Vec<&str> = FLAGS.into_iter().chain([user_data.as_str()]).collect();
        let capabilities =
            json!({ "goog:chromeOptions": { "args": flags }, "goog:loggingPrefs": { "browser": "ALL" } });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        let session = client.session_id().await.unwrap().unwrap();
        Some(Self { client, driver, port, session, _profile: profile })
    }

    /// What `script`, the body of a function, returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// A text that `script` returns.
    pub(crate) async fn text(&self, script: &str) -> String {
        self.run(script).await.as_str().unwrap_or_default().to_owned()
    }

    /// A command to the developer tools.
    pub(crate) async fn devtools(&self, command: &str, params: Value) -> Value {
        let body = json!({ "cmd": command, "params": params });
        self.client.issue_cmd(Raw { path: "goog/cdp/execute", body }).await.unwrap()
    }

    /// A window of so many pixels, as on a phone if it is narrow.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.devtools("Emulation.setDeviceMetricsOverride", params).await;
    }

    /// What the browser complained of since the last call.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.client.issue_cmd(Raw { path: "se/log", body: json!({ "type": "browser" }) }).await.unwrap();
        log.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// How long it takes until `script` returns `true`.
    #[track_caller]
    pub(crate) fn wait(&self, script: &str) -> impl Future<Output = Duration> {
        let caller = std::panic::Location::caller();
        async move {
            let begun = Instant::now();
            loop {
                if self.run(script).await == Value::Bool(true) {
                    return begun.elapsed();
                }
                if begun.elapsed() > PATIENCE {
                    let shown = self.text("return document.body.innerText").await;
                    panic!("{caller}: never came true: {script}\nthe page shows:\n{shown}");
                }
                sleep(POLL).await;
            }
        }
    }

    /// Presses keys, as somebody without a mouse does: once the element can be reached, which may be drawn anew just now.
    pub(crate) async fn press(&self, selector: &str, keys: &str) {
        let begun = Instant::now();
        loop {
            let pressed = match self.client.find(Locator::Css(selector)).await {
                Ok(element) => element.send_keys(keys).await,
                Err(error) => Err(error),
            };
            match pressed {
                Ok(()) => return,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{selector}: {error}"),
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for Browser {
    /// A driver that is killed leaves its browser behind: the session is ended first, without the runtime, which may be
    /// on its way down after a failure.
    fn drop(&mut self) {
        let end = || -> io::Result<()> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(GOODBYE))?;
            let session = &self.session;
            write!(stream, "DELETE /session/{session} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            // The answer begins when the browser is gone; the driver would keep the connection.
            stream.read_exact(&mut [0])
        };
        if let Err(error) = end() {
            eprintln!("a browser may be left behind: {error}");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
