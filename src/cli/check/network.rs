//! Checks whether the egress proxy can be reached, and whether the environment names a proxy that
//! makegood ignores.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Findings;
use crate::config::Settings;
use crate::egress::ignored_variable;

/// The timeout of a connection to the proxy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the proxy of the settings. It sends nothing.
pub(super) async fn check(settings: &Settings, found: &mut Findings) {
    let Some(proxy) = &settings.network.proxy else {
        if let Some(name) = ignored_variable() {
            found.warn(
                "network",
                format!("{name} is set in the environment and ignored: providers are asked without a proxy"),
                "if they need a proxy, set network.proxy",
            );
        }
        return;
    };
    let url = proxy.expose();
    let place = (
        url.host_str().unwrap_or_default().trim_matches(['[', ']']),
        url.port_or_known_default().unwrap_or(80),
    );
    let failed = match timeout(CONNECT_TIMEOUT, TcpStream::connect(place)).await {
        Ok(Ok(_)) => {
            found.ok(
                "network",
                format!("questions and downloads go through {proxy}, which accepts connections"),
            );
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {} seconds", CONNECT_TIMEOUT.as_secs()),
    };
    found.fail(
        "network",
        format!("could not connect to the proxy {proxy}: {failed}"),
        "providers cannot be asked: fix the proxy, or network.proxy",
    );
}
