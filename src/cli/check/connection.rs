//! Checks how the connection to PostgreSQL is secured, and whether a connection pooler is used.
//! Connections that cannot work have failed before.

use super::Findings;
use crate::store::{Encryption, Store};

/// Checks TLS and the pooler.
pub(super) fn check(store: &Store, found: &mut Findings) {
    const ABOUT: &str = "connection";
    const VERIFY: &str = "remove `sslmode` from database.url: TLS is then required and the server verified, by the \
                          public CAs or by `sslrootcert=FILE`";
    let Some(link) = store.link() else { return };
    let place = &link.place;
    match link.encryption {
        Encryption::Local => found.ok(ABOUT, format!("{place} is this machine")),
        Encryption::Verified => found.ok(ABOUT, format!("encrypted, and {place} is verified")),
        Encryption::AnyName => found.warn(
            ABOUT,
            format!("encrypted, but any certificate of a known CA passes for that of {place}"),
            VERIFY,
        ),
        Encryption::Unverified => found.warn(
            ABOUT,
            format!("encrypted, but anyone on the network could impersonate {place} (sslmode=require)"),
            VERIFY,
        ),
        Encryption::MaybeNone => found.warn(
            ABOUT,
            format!(
                "anyone on the network could read and change what is sent to {place}: it may be plain text"
            ),
            VERIFY,
        ),
    }
    if link.pooled {
        found.ok("pooler", "used; settings are set in each transaction, and no prepared statement is named");
    }
}
