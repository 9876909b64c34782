//! The entry point of the `silkrate` command.

use std::process::ExitCode;

/// An allocator that returns memory to the system within seconds after a load. That of the C library keeps it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    silkrate::cli::main()
}
