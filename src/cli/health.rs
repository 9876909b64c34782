//! The `health` command: whether a server serves. Container platforms and scripts ask it.

use clap::Args;
use serde::Serialize;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::output::Column;
use super::pages::write_all;
use super::value::Value;
use super::{CliError, Outcome, Session};
use crate::server::{INGEST_SERVICE, RATE_SERVICE, SNAPSHOT_SERVICE};

const EXAMPLES: &str = "\
Examples:
  silkrate health
  silkrate health --output json
  silkrate health >/dev/null && echo serving

The exit status is 0 if the server serves reads and accepts ticks, and 1 otherwise. The call needs no token.";

/// Arguments of `health`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct HealthArgs {}

/// The health of one gRPC service.
#[derive(Debug, Serialize)]
struct ServiceHealth {
    service: &'static str,
    status: &'static str,
}

const COLUMNS: &[Column<ServiceHealth>] = &[
    Column::new("service", "service", |row| Value::text(row.service)),
    Column::new("status", "status", |row| Value::text(row.status)),
];

pub(super) async fn run(_: HealthArgs, session: &Session) -> Result<Outcome, CliError> {
    let client = session.connect().await?;
    let mut rows = Vec::new();
    for service in [RATE_SERVICE, INGEST_SERVICE, SNAPSHOT_SERVICE] {
        let request = client.request(HealthCheckRequest { service: service.to_owned() });
        let status = client.answer(HealthClient::new(client.transport()).check(request)).await?.status();
        rows.push(ServiceHealth { service, status: status.as_str_name() });
    }
    write_all(session, COLUMNS, &rows)?;
    let serves = rows.iter().all(|row| row.status == ServingStatus::Serving.as_str_name());
    Ok(if serves { Outcome::Done } else { Outcome::Failed })
}
