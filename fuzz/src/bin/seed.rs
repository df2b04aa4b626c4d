//! Writes the providers' example answers into the corpus:
//! `cargo run --no-default-features --bin seed`.

use std::path::Path;

#[path = "../../answers.rs"]
#[expect(dead_code, reason = "the other programs need the rest")]
mod answers;

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = answers::examples(&here.join("../tests/data/provider-examples"));
    for (name, input) in &examples {
        let path = here.join("corpus/answers").join(name);
        std::fs::write(&path, input).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    println!("{} seeds written", examples.len());
}
