//! Whether the egress proxy can be reached, and whether the environment names one that makegood
//! ignores.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Findings;
use crate::config::Settings;
use crate::egress::ignored_variable;

/// For a connection to the proxy.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to the proxy of the settings; nothing is sent.
pub(super) async fn check(settings: &Settings, found: &mut Findings) {
    let Some(proxy) = &settings.network.proxy else {
        if let Some(name) = ignored_variable() {
            found.warn(
                "network",
                format!("{name} is set in the environment and ignored: providers are asked directly"),
                "if they can only be reached through a proxy, set network.proxy",
            );
        }
        return;
    };
    let url = proxy.expose();
    let place = (
        url.host_str().unwrap_or_default().trim_matches(['[', ']']),
        url.port_or_known_default().unwrap_or(80),
    );
    let failed = match timeout(PATIENCE, TcpStream::connect(place)).await {
        Ok(Ok(_)) => {
            found.ok(
                "network",
                format!("questions and downloads go through {proxy}, which accepts connections"),
            );
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {} seconds", PATIENCE.as_secs()),
    };
    found.fail(
        "network",
        format!("could not connect to the proxy {proxy}: {failed}"),
        "providers cannot be asked: mend the proxy, or network.proxy",
    );
}
