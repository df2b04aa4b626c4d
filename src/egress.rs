//! Where requests to providers may go, and by which way: the host lists of provider files and the
//! egress proxy.
//!
//! `provider` asks and `recovery` fetches; both judge a URL by the same lists ([`Hosts`]) and send
//! what is allowed by the same way ([`matcher`]). Nothing here sends anything. Which address a name
//! leads to is judged in `recovery`; with a proxy, by the proxy.

mod hosts;
mod proxy;

pub use hosts::{Hosts, List, Unlisted, is_loopback};
pub use proxy::{ignored_variable, matcher, proxied_bucket};
