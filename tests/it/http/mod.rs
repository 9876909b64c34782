//! The page and the calls over plain HTTP.

mod calls;
mod compare;
mod frankfurter;
mod frankfurter_client;
mod metrics;
mod page;
