//! Runs the whole pipeline in one library test, so that a wrong decision or refund is found within
//! seconds.

use super::{DemoOptions, OutputStyle, run};

#[tokio::test]
async fn p01_the_example_day_ends_as_expected() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let home = tempfile::tempdir().unwrap();
    let options = DemoOptions {
        dir: home.path().join("demo"),
        style: OutputStyle::Plain,
        program: "makegood".to_owned(),
        before: String::new(),
    };
    let outcome = run(&options).await.unwrap();
    assert_eq!(outcome.mismatches, Vec::<String>::new(), "{}", outcome.text);
}
