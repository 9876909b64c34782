//! A Frankfurter client from `PyPI` reads from this server.
//!
//! The client is installed once into `target/frankfurter-venv`. It has no setting for its host, so the script replaces
//! the host and the scheme. Without Python or `PyPI` the test reports that it is skipped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skipped;
use crate::support::{TestServer, tick};

const CLIENT: &str = "frankfurter==2.0.0";
const DAY_S: i64 = 86_400;

/// Returns a Python with the client, or the reason why there is none.
fn python() -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let (venv, python) = (target.join("frankfurter-venv"), target.join("frankfurter-venv/bin/python"));
    let lock = File::create(target.join("frankfurter-venv.lock")).unwrap();
    lock.lock().unwrap();
    let run = |command: &mut Command| match command.output() {
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned()),
        Err(problem) => Err(problem.to_string()),
    };
    if run(Command::new(&python).args(["-c", "import frankfurter"])).is_err() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", CLIENT]))?;
    }
    Ok(python)
}

const SCRIPT: &str = r#"
import sys
import frankfurter.engine as engine
request = engine.Request
engine.Request = lambda url, **more: request(url=url.replace("https://", "http://", 1), **more)
client = engine.FrankfurterEngine()
client._FrankfurterEngine__base_url = sys.argv[1] + "/frankfurter/v1"

assert client.fetch_currencies() == {"KGS": "Kyrgyzstani som", "USD": "United States dollar"}
latest = client.fetch_latest_data(base="KGS", symbols="USD")
assert latest.pop("sources") == {"USD": ["timesca"]}, latest
assert latest == {"amount": 1.0, "base": "KGS", "date": "2025-12-08", "rates": {"USD": 0.01150}}, latest
friday = client.fetch_data_for_date("2025-12-05", base="KGS", symbols="USD")
assert (friday["date"], friday["rates"]) == ("2025-12-05", {"USD": 0.01144}), friday
days = client.fetch_time_series_data(base="KGS", symbols="USD", start_date="2025-12-01", end_date="2025-12-31")
assert days["rates"] == {"2025-12-05": {"USD": 0.01144}, "2025-12-08": {"USD": 0.01150}}, days
assert (days["start_date"], days["end_date"]) == ("2025-12-05", "2025-12-08"), days
"#;

#[tokio::test]
async fn frankfurter_client_reads_latest_day_and_range() {
    let python = match tokio::task::spawn_blocking(python).await.unwrap() {
        Ok(python) => python,
        Err(why) => return skipped::skipped(&format!("there is no Python with {CLIENT}: {why}")),
    };
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -3 * DAY_S, "0.01144"), tick("KGS/USD", 0, "0.01150")]).await;
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT, &server.http_addr.to_string()]);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
