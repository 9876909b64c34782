//! The `silkrate` program.

use std::process::ExitCode;

use clap::Parser;
use silkrate::config::ServeArgs;
use silkrate::server;

/// Exchange-rate time series for five Central Asian currencies.
#[derive(Parser)]
#[command(name = "silkrate", version)]
enum Command {
    /// Run the server
    Serve(Box<ServeArgs>),
}

#[tokio::main]
async fn main() -> ExitCode {
    match Command::parse() {
        Command::Serve(args) => server::serve(*args).await,
    }
}
