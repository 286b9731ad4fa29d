//! The `prontomq` program; see `prontomq::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    prontomq::cli::run()
}
