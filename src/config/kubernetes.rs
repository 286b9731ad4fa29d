//! The variables that Kubernetes sets in every container of a namespace, for each of its Services.
//!
//! The variables of a Service named `prontomq` or `prontomq-headless` have the same prefix as those of settings.

/// Transports that a Service's port may have.
const TRANSPORTS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether a variable is one of a Service; `suffix` is what follows `PRONTOMQ_` in its name.
pub(super) fn is_of_kubernetes(suffix: &str) -> bool {
    let rest = format!("_{suffix}");
    rest.contains("_SERVICE_")
        || rest.ends_with("_PORT")
        || rest.match_indices("_PORT_").any(|(at, mark)| is_port(&rest[at + mark.len()..]))
}

/// `<number>_<transport>`, alone or followed by a part of its address.
fn is_port(text: &str) -> bool {
    let Some((number, rest)) = text.split_once('_') else { return false };
    let (transport, part) = rest.split_once('_').unwrap_or((rest, ""));
    number.parse::<u16>().is_ok() && TRANSPORTS.contains(&transport) && ["", "PROTO", "PORT", "ADDR"].contains(&part)
}
