//! The entry point of the `silkrate` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    silkrate::cli::main()
}
