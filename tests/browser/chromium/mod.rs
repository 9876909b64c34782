//! A headless Chromium, driven through `chromedriver`.

use std::fmt::Debug;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::wd::{WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::skipped::skipped;

/// Far longer than any step of these tests takes on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The longest time for the browser to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(15);

/// No sandbox, since tests may run as root in a container; no background traffic to other hosts.
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

/// A browser with one window, which exits when dropped.
pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Child,
    /// The port of the driver.
    port: u16,
    session: String,
    _profile: TempDir,
}

/// A command of the driver that the client library does not have.
#[derive(Debug)]
struct RawCommand {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for RawCommand {
    fn endpoint(&self, base_url: &url::Url, session_id: Option<&str>) -> Result<url::Url, url::ParseError> {
        base_url.join(&format!("session/{}/{}", session_id.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

impl Browser {
    /// Starts a browser. Without Chromium or its driver, reports that the test is skipped and returns `None`.
    pub(crate) async fn start() -> Option<Self> {
        if !is_installed("chromium") || !is_installed("chromedriver") {
            skipped("chromium and chromedriver are not installed (Debian package: chromium-driver)");
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let mut driver =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(driver.stdout.take().unwrap());
        // The driver prints "ChromeDriver was started successfully on port 12345." when it listens.
        let port = tokio::task::spawn_blocking(move || {
            output.lines().map_while(Result::ok).find_map(|line| {
                line.strip_prefix("ChromeDriver was started successfully on port ")
                    .and_then(|rest| rest.trim_end_matches('.').parse::<u16>().ok())
            })
        });
        let port = port.await.unwrap().expect("chromedriver prints its port");
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

    /// Runs `script`, the body of a function, and returns its value.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Runs `script` and returns its text.
    pub(crate) async fn text(&self, script: &str) -> String {
        self.run(script).await.as_str().unwrap_or_default().to_owned()
    }

    /// Sends a command to the developer tools.
    pub(crate) async fn devtools(&self, command: &str, params: Value) -> Value {
        let body = json!({ "cmd": command, "params": params });
        self.client.issue_cmd(RawCommand { path: "goog/cdp/execute", body }).await.unwrap()
    }

    /// Resizes the window, in pixels; a narrow window emulates a phone.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.devtools("Emulation.setDeviceMetricsOverride", params).await;
    }

    /// Opens a window with the page at `url` and switches to it. A tab hides the tab that was shown before it; a window
    /// hides nothing.
    pub(crate) async fn open(&self, url: &str, as_tab: bool) -> WindowHandle {
        let window = self.client.new_window(as_tab).await.unwrap().handle;
        self.client.switch_to_window(window.clone()).await.unwrap();
        self.client.goto(url).await.unwrap();
        window
    }

    /// Switches to a window.
    pub(crate) async fn switch(&self, window: &WindowHandle) {
        self.client.switch_to_window(window.clone()).await.unwrap();
    }

    /// Minimizes the present window or shows it again.
    pub(crate) async fn set_minimized(&self, is_minimized: bool) {
        let window = self.devtools("Browser.getWindowForTarget", json!({})).await["windowId"].clone();
        let state = if is_minimized { "minimized" } else { "normal" };
        self.devtools("Browser.setWindowBounds", json!({ "windowId": window, "bounds": { "windowState": state } }))
            .await;
    }

    /// Returns the messages in the console of the browser since the last call.
    pub(crate) async fn console_messages(&self) -> Vec<String> {
        let log =
            self.client.issue_cmd(RawCommand { path: "se/log", body: json!({ "type": "browser" }) }).await.unwrap();
        log.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until `script` returns `true`, and returns the duration.
    #[track_caller]
    pub(crate) fn wait(&self, script: &str) -> impl Future<Output = Duration> {
        let caller = std::panic::Location::caller();
        async move {
            let begun = Instant::now();
            loop {
                if self.run(script).await == Value::Bool(true) {
                    return begun.elapsed();
                }
                if begun.elapsed() > TIMEOUT {
                    let shown = self.text("return document.body.innerText").await;
                    panic!("{caller}: still not true: {script}\nthe page shows:\n{shown}");
                }
                sleep(POLL_INTERVAL).await;
            }
        }
    }

    /// Sends key presses to an element, retrying while the element is being redrawn.
    pub(crate) async fn press(&self, selector: &str, keys: &str) {
        let begun = Instant::now();
        loop {
            let pressed = match self.client.find(Locator::Css(selector)).await {
                Ok(element) => element.send_keys(keys).await,
                Err(error) => Err(error),
            };
            match pressed {
                Ok(()) => return,
                Err(error) => assert!(begun.elapsed() < TIMEOUT, "{selector}: {error}"),
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for Browser {
    /// Ends the session first, because a killed driver leaves its browser running. This does not use the runtime,
    /// which may be shutting down after a failure.
    fn drop(&mut self) {
        let end = || -> io::Result<()> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(EXIT_TIMEOUT))?;
            let session = &self.session;
            write!(stream, "DELETE /session/{session} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            // The response begins after the browser has exited; the driver keeps the connection open.
            stream.read_exact(&mut [0])
        };
        if let Err(error) = end() {
            eprintln!("a browser may still be running: {error}");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
