//! How the statements of a pass reach PostgreSQL: whether others can read and change them, and
//! whether a pooler is in between. Only tells; opening has refused whatever cannot work.

use super::Findings;
use crate::store::{Encryption, Store};

/// Tells of TLS and of a pooler.
pub(super) fn check(store: &Store, found: &mut Findings) {
    const ABOUT: &str = "connection";
    const VERIFY: &str = "take `sslmode` out of database.url: TLS is required and the server verified then, by the \
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
            format!("encrypted, but whoever is on the network may pretend to be {place} (sslmode=require)"),
            VERIFY,
        ),
        Encryption::MaybeNone => found.warn(
            ABOUT,
            format!(
                "whoever is on the network may read and change what is sent to {place}: it may be plain text"
            ),
            VERIFY,
        ),
    }
    if link.pooled {
        found.ok(
            "pooler",
            "in between; settings are made inside each transaction, no statement is kept under a name",
        );
    }
}
