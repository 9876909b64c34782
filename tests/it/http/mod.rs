//! Tests of plain HTTP: the API calls, the Frankfurter API, metrics and the page.

mod calls;
mod compare;
mod frankfurter;
mod frankfurter_client;
mod metrics;
mod newest_first;
mod page;
mod page_pairs;
mod proxies;
