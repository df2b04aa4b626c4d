//! Which hosts requests may go to (the lists in provider files), and through which egress proxy.
//!
//! `provider` and `recovery` check URLs against the same lists ([`Hosts`]) and use the same proxy
//! ([`matcher`]). Nothing here sends a request. The addresses of a host name are checked in
//! `recovery`, or by the proxy if there is one.

mod hosts;
mod proxy;

pub use hosts::{Hosts, List, Unlisted, is_loopback};
pub use proxy::{ignored_variable, matcher, proxied_bucket};
