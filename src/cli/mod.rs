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
