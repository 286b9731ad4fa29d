//! The command line: one file per subcommand.

mod backup;
mod banner;
mod bench;
mod doctor;
mod log;
mod place;
mod serve;
mod sql;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A message broker that speaks AMQP 0-9-1, in one binary with one file.
#[derive(Debug, Parser)]
#[command(name = "prontomq", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker.
    Serve(serve::Serve),
    /// Put load on an AMQP 0-9-1 broker and measure it.
    Bench(Box<bench::Bench>),
    Sql(sql::Sql),
    Backup(backup::Backup),
    Doctor(doctor::Doctor),
}

/// Runs what the command line asks for.
pub fn run() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Bench(bench) => bench.run(),
        Command::Sql(sql) => sql.run(),
        Command::Backup(backup) => backup.run(),
        Command::Doctor(doctor) => doctor.run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_a_command_or_a_flag_is_answered_with_the_nearest_one() {
        for (line, meant) in
            [(&["prontomq", "sreve"][..], "'serve'"), (&["prontomq", "serve", "--data-dri", "x"], "'--data-dir'")]
        {
            let error = Arguments::try_parse_from(line).expect_err("there is no such thing").to_string();
            assert!(error.contains(meant), "{error}");
        }
    }
}
