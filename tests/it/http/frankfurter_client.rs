//! A Frankfurter client from `PyPI` reads from this server.
//!
//! The client is installed once into `target/frankfurter-venv`. It has no setting for its host, so the script replaces
//! the host and the scheme. Without Python or `PyPI` the test reports that it is skipped.

use std::process::Command;

use crate::skipped;
use crate::support::{TestServer, tick};
use crate::venv;

const CLIENT: &str = "frankfurter==2.0.0\n";
const DAY_S: i64 = 86_400;

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
    let python = || venv::python("frankfurter-venv", CLIENT);
    let python = match tokio::task::spawn_blocking(python).await.unwrap() {
        Ok(python) => python,
        Err(why) => return skipped::skipped(&format!("there is no Python with {}: {why}", CLIENT.trim())),
    };
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -3 * DAY_S, "0.01144"), tick("KGS/USD", 0, "0.01150")]).await;
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT, &server.http_addr.to_string()]);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
