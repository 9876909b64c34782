//! The `silkrate` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    silkrate::cli::main()
}
