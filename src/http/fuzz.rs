//! The body of the fuzz target of requests: query strings.
//!
//! **Invariant**: no query string makes the code panic.

use serde::de::DeserializeOwned;

use super::parameters::Parameters;
use super::short_forms;
use crate::domain::Timestamp;
use crate::proto::v1;

/// Reads a query string as the request of each call.
pub fn request(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else { return };
    read::<v1::GetLatestRatesRequest>(query);
    read::<v1::GetRateRequest>(query);
    read::<v1::GetChangeRequest>(query);
    read::<v1::ConvertRequest>(query);
    read::<v1::ListRunsRequest>(query);
    read::<v1::ListChangesRequest>(query);
    read::<v1::ListCandlesRequest>(query);
    read::<v1::ListGapsRequest>(query);
    read::<v1::CompareSourcesRequest>(query);
}

fn read<Q: DeserializeOwned>(query: &str) {
    for is_field in [false, true] {
        let Ok(mut parameters) = Parameters::parse(Some(query)) else { return };
        if short_forms::expand(&mut parameters, Timestamp::default(), |_| is_field).is_ok() {
            let _ = parameters.read::<Q>(&["format"]);
        }
    }
}
