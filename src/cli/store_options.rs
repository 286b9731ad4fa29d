//! The options by which a command finds its store: the data directory, determined as in `prontomq serve`.

use crate::config::Sources;
use crate::config::sources::File;
use clap::Args;
use std::path::PathBuf;

/// The options that name a store.
#[derive(Debug, Args)]
pub(super) struct StoreOptions {
    /// Read the data directory from this configuration file, unless the environment or --data-dir set one.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// The broker's data directory; by default that of PRONTOMQ_DATA_DIR, of the configuration file, or
    /// ./prontomq-data.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl StoreOptions {
    /// The data directory: from the flag, otherwise from the environment, otherwise from the file, otherwise the
    /// default.
    ///
    /// # Errors
    /// A sentence, if the file or the environment has settings that `prontomq serve` refuses.
    pub(super) fn directory(&self) -> Result<PathBuf, String> {
        let path = self.config.as_ref().map(|path| path.display().to_string());
        let text = self.config.as_ref().map(std::fs::read_to_string).transpose();
        let text = text.map_err(|error| format!("config: {}: {error}", path.as_deref().unwrap_or_default()))?;
        let file = path.as_deref().zip(text.as_deref()).map(|(path, text)| File { path, text });
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let settings = Sources { file, environment, flags: Vec::new() }.settings();
        let configured = settings.map_err(|error| error.to_string())?.data_dir;
        Ok(self.data_dir.clone().unwrap_or(configured))
    }
}
