//! The whole way of a charge in one test of the library: what decides or moves money wrongly is told by it in seconds.

use super::{Look, Orders, run};

#[tokio::test]
async fn p01_the_example_day_ends_as_promised() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let home = tempfile::tempdir().unwrap();
    let orders = Orders {
        dir: home.path().join("demo"),
        look: Look::Plain,
        program: "makegood".to_owned(),
        before: String::new(),
    };
    let told = run(&orders).await.unwrap();
    assert_eq!(told.mismatches, Vec::<String>::new(), "{}", told.text);
}
