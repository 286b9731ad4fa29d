//! The text that `prontomq serve` prints once clients can connect.

use super::log::Log;
use crate::config::Settings;
use crate::server::Server;
use crate::server::url::{encoded, path_of, reachable};
use std::net::SocketAddr;

/// The line for which Testcontainers wait.
const READY: &str = "Server startup complete; 0 plugins started.";
const IN_MEMORY: &str = "data in memory (store.kind): it is lost when the broker stops";
const NO_USERS: &str = "nobody can log in: there is no user; start with the --config that lists them";

/// Printed in place of the password of a configured user.
const PASSWORD: &str = "PASSWORD";

/// Prints on stdout: the addresses for clients, how to stop the broker, and a command to try.
pub(super) fn print(log: &Log, server: &Server, settings: &Settings, program: &str) {
    let login = Login::of(server, settings);
    let urls: Vec<String> = server.amqp_addresses().iter().map(|address| login.url(*address)).collect();
    let metrics = server.metrics_address().map(|address| format!("http://{}/metrics", reachable(address)));
    let data_dir = settings.keeps_files().then(|| settings.data_dir.display().to_string());
    let to_try = urls.first().filter(|_| server.has_users()).map(|url| format!("{program} bench --url {url}"));

    let mut text = format!("{READY}\n");
    for (address, url) in server.amqp_addresses().iter().zip(&urls) {
        let elsewhere = if address.ip().is_unspecified() { " (and all other addresses of this machine)" } else { "" };
        text += &format!("  AMQP 0-9-1 on {url}{elsewhere}\n");
    }
    if let Some(metrics) = &metrics {
        text += &format!("  metrics on {metrics}\n");
    }
    text += &match &data_dir {
        Some(data_dir) => format!("  data in {data_dir}\n"),
        None => format!("  {IN_MEMORY}\n"),
    };
    text += &match &to_try {
        Some(to_try) => format!("  stop with Ctrl-C; try `{to_try}` from another terminal\n"),
        None => format!("  {NO_USERS}\n  stop with Ctrl-C\n"),
    };

    let as_line = || {
        let metrics = metrics.as_deref().unwrap_or("off");
        let data_dir = data_dir.as_deref().unwrap_or(IN_MEMORY);
        let to_try = to_try.as_deref().unwrap_or(NO_USERS);
        tracing::info!(amqp = urls.join(" "), metrics, data_dir, to_try, "{READY}");
    };
    log.print(&text, as_line);
}

/// The user, with password, and the path of a URL.
struct Login {
    user_info: String,
    /// Every client takes a URL without a path to mean the vhost `/`. With a lone slash, some clients take the vhost
    /// with the empty name.
    path: String,
}

impl Login {
    /// The first configured user, without the password; otherwise guest, if its default password works.
    fn of(server: &Server, settings: &Settings) -> Self {
        match settings.users.first() {
            Some(user) => Self { user_info: format!("{}:{PASSWORD}@", encoded(&user.name)), path: path_of(user) },
            None if server.accepts_login("guest", "guest") => {
                Self { user_info: "guest:guest@".to_owned(), path: String::new() }
            }
            None => Self { user_info: String::new(), path: String::new() },
        }
    }

    fn url(&self, address: SocketAddr) -> String {
        format!("amqp://{}{}{}", self.user_info, reachable(address), self.path)
    }
}
