//! One place names the Rust version: `rust-version` in `Cargo.toml`. It is the oldest Rust that
//! builds makegood, the one whose lints are heeded, and the one that the image is built with.
//! Cargo and `scripts/test.sh` read it there. The `Dockerfile` cannot, so it is held to it here.

use crate::files::read;

#[test]
fn the_image_is_built_with_the_rust_that_cargo_names() {
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap();
    let version = version.trim_end_matches('"');
    let dockerfile = read("Dockerfile");
    let expected = format!("FROM rust:{version}-");
    assert!(
        dockerfile.lines().any(|line| line.starts_with(&expected)),
        "no line of the Dockerfile begins with `{expected}`: `rust-version` in Cargo.toml is {version}"
    );
}

#[test]
fn no_other_file_names_a_rust_version() {
    let script = read("scripts/test.sh");
    assert!(script.contains("rust-version"), "scripts/test.sh reads the version from Cargo.toml");
    for path in ["rust-toolchain.toml", "rust-toolchain"] {
        let exists = crate::files::root().join(path).exists();
        assert!(!exists || !read(path).contains("1."), "{path} names a version besides Cargo.toml");
    }
}
