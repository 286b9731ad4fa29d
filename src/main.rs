//! The `prontomq` program; see `src/cli/`.

use std::process::ExitCode;

fn main() -> ExitCode {
    prontomq::internals::run()
}
