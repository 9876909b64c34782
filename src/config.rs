//! Settings of the server.

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {}
