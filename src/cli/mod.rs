//! The command line: one file per subcommand.

mod backup;
mod banner;
mod bench;
mod doctor;
mod log;
mod serve;
mod sql;
mod store_options;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A message broker that speaks AMQP 0-9-1, in one binary with one data directory.
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

/// Runs the command of the command line.
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
    fn a_misspelt_command_or_flag_is_answered_with_the_nearest_one() {
        for (line, meant) in
            [(&["prontomq", "sreve"][..], "'serve'"), (&["prontomq", "serve", "--data-dri", "x"], "'--data-dir'")]
        {
            let error = Arguments::try_parse_from(line).expect_err("the command or flag does not exist").to_string();
            assert!(error.contains(meant), "{error}");
        }
    }
}
