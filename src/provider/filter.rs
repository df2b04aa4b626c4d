//! Compiles jq filters, and runs them without I/O.
//!
//! Neither a filter nor the answer that it reads is trusted. A filter has no access to the
//! environment, the clock, logs or further input, and it cannot exit the process. `fromjson` has
//! the same limits as every answer (`json`). A run returns one value or an error message; a filter
//! without output and even a panic inside jaq are error messages. A filter cannot be interrupted
//! here: `filters` runs it in a process that can be killed. `reading` interprets the value.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use jaq_core::data::JustLut;
use jaq_core::load::parse::Def;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::native::{Fun, bome, run, v};
use jaq_core::{Compiler, Ctx, Exn, Vars};
use jaq_json::Val;

use super::json;

type Data = JustLut<Val>;

/// Native functions that are removed, because they have access to more than the answer.
const WITHOUT_FUNS: [&str; 8] = [
    "env",
    "halt",
    "debug_empty",
    "stderr_empty",
    "now",
    "localtime",
    "strflocaltime",
    // Its parser overflows the stack on deep nesting. `fromjson` below replaces it.
    "fromjson",
];
/// Definitions that are removed, because they call these functions or `PRELUDE` replaces them.
const WITHOUT_DEFS: [&str; 5] = ["debug", "stderr", "halt", "halt_error", "transpose"];

/// Functions of jq that jaq lacks, and one helper: `text` converts any value to text.
///
/// Unlike in jq, `transpose` fails if a list is null. Otherwise a missing list in an answer would
/// be read as an empty one.
const PRELUDE: &str = r#"
def IN(s): any(s == .; .);
def IN(src; s): any(src == s; .);
def INDEX(stream; f): reduce stream as $row ({}; . + {($row | f | tostring): $row});
def INDEX(f): INDEX(.[]; f);
def transpose:
  if type != "array" or any(.[]; type != "array") then error("transpose: a list is missing or null") else . end
  | . as $rows
  | [range(map(length) | max // 0)]
  | map(. as $nth | $rows | map(.[$nth]));
def text: if . == null then null elif type == "string" then . else tojson end;
"#;

/// The definitions that every filter may use, parsed once: a pass compiles a dozen filters before its
/// first question.
static DEFS: LazyLock<Vec<Def<&'static str>>> = LazyLock::new(|| {
    let prelude =
        load::parse(PRELUDE, |parser| parser.defs()).expect("the prelude is a constant that parses");
    let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    defs.filter(|def| !WITHOUT_DEFS.contains(&def.name)).chain(prelude).collect()
});

/// A compiled filter.
pub(super) struct Filter(jaq_core::Filter<Data>);

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

impl Filter {
    /// Compiles `code`. The error says why it is invalid.
    pub(super) fn compile(code: &str) -> Result<Self, String> {
        let defs = DEFS.iter().cloned();
        let funs = jaq_core::funs::<Data>()
            .chain(jaq_std::funs())
            .chain(jaq_json::funs())
            .filter(|(name, _, _)| !WITHOUT_FUNS.contains(name))
            .chain([fromjson()]);

        let arena = Arena::default();
        let modules = Loader::new(defs)
            .load(&arena, File { code, path: () })
            .map_err(|errors| describe(code, errors.into_iter().flat_map(|(_, error)| load_errors(error))))?;
        Compiler::default().with_funs(funs).compile(modules).map(Self).map_err(|errors| {
            let undefined = errors.into_iter().flat_map(|(_, errors)| errors);
            describe(
                code,
                undefined.map(|(name, kind)| (format!("the {} `{name}` is unknown", kind.as_str()), name)),
            )
        })
    }

    /// Runs the filter and returns its first output. Further outputs are ignored.
    pub(super) fn first(&self, input: Val) -> Result<Val, String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let ctx = Ctx::<Data>::new(&self.0.lut, Vars::new([]));
            // Take only one output: after an error, the iterator may be infinite.
            self.0.id.run((ctx, input)).next().map(|output| output.map_err(Exn::get_err))
        }));
        match outcome {
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err(Ok(error)))) => Err(format!("the filter failed: {error}")),
            Ok(Some(Err(Err(_)))) => Err("the filter stopped without an output".into()),
            Ok(None) => Err("the filter returned no output".into()),
            Err(_) => Err("the filter crashed on this answer".into()),
        }
    }
}

/// Defines `fromjson` with the limits of every answer.
fn fromjson() -> Fun<Data> {
    run(("fromjson", v(0), |cv| {
        bome(match &cv.1 {
            Val::TStr(text) => {
                json::parse(text).map_err(|error| jaq_core::Error::str(format!("cannot parse: {error}")))
            }
            other => Err(jaq_core::Error::typ(other.clone(), "string")),
        })
    }))
}

/// Returns the messages of a load error, each with the part of the code that it refers to.
fn load_errors(error: load::Error<&str>) -> Vec<(String, &str)> {
    match error {
        load::Error::Io(errors) => {
            errors.into_iter().map(|(at, _)| ("filters cannot import".to_owned(), at)).collect()
        }
        load::Error::Lex(errors) => {
            errors.into_iter().map(|(expected, at)| (format!("expected {}", expected.as_str()), at)).collect()
        }
        load::Error::Parse(errors) => {
            errors.into_iter().map(|(expected, at)| (format!("expected {}", expected.as_str()), at)).collect()
        }
    }
}

/// Formats the first error with its line.
fn describe<'a>(code: &str, errors: impl Iterator<Item = (String, &'a str)>) -> String {
    let Some((message, at)) = errors.into_iter().next() else { return "it does not compile".into() };
    let start = load::span(code, at).start;
    let line = code.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
    let near: String = code.get(start..).unwrap_or_default().chars().take(30).collect();
    format!("line {line}: {message}, near `{}`", near.trim())
}

#[cfg(test)]
mod tests {
    use super::super::json::{parse, to_json};
    use super::*;

    fn run(code: &str, input: &str) -> Result<serde_json::Value, String> {
        Filter::compile(code)?.first(parse(input.as_bytes()).unwrap()).and_then(|value| to_json(&value))
    }

    #[test]
    fn only_the_first_output_counts() {
        assert_eq!(run("1, 2, error(\"x\")", "null"), Ok(1.into()));
        assert!(run("empty", "null").unwrap_err().contains("no output"));
        assert!(run("error(\"no way\")", "null").unwrap_err().contains("no way"));
        assert!(run(".[]", "3").unwrap_err().contains("filter failed"));
    }

    #[test]
    fn functions_with_access_to_more_than_the_answer_are_unknown() {
        for code in [
            "env",
            "$ENV",
            "halt",
            "halt(3)",
            "halt_error",
            "debug",
            "stderr",
            "now",
            "input",
            "inputs",
            "localtime",
            "input_filename",
            "include \"x\"; .",
            "import \"x\" as y; .",
        ] {
            assert!(Filter::compile(code).is_err(), "{code} compiles");
        }
    }

    #[test]
    fn the_prelude_defines_functions_that_jaq_lacks() {
        assert_eq!(run("IN(1, 2)", "2"), Ok(true.into()));
        assert_eq!(run("INDEX(.id) | keys", r#"[{"id":1},{"id":2}]"#), Ok(serde_json::json!(["1", "2"])));
        assert_eq!(
            run("map(text)", r#"[null,"a",{"b":1}]"#),
            Ok(serde_json::json!([null, "a", "{\"b\":1}"]))
        );
    }

    #[test]
    fn fromjson_refuses_deep_nesting_instead_of_overflowing() {
        assert_eq!(run("fromjson", r#""[1]""#), Ok(serde_json::json!([1])));
        assert_eq!(run("tonumber", r#""42""#), Ok(42.into()));
        let deep = format!("\"{}\"", "[".repeat(100_000));
        assert!(run("fromjson", &deep).is_err());
        assert_eq!(run("try fromjson catch \"bad\"", &deep), Ok("bad".into()));
    }

    #[test]
    fn a_filter_that_does_not_compile_says_where() {
        let error = Filter::compile(".a\n| foo(1)").unwrap_err();
        assert!(error.contains("line 2") && error.contains("foo"), "{error}");
        let error = Filter::compile("if .a then").unwrap_err();
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn filters_can_be_shared_between_threads() {
        const fn shared<T: Send + Sync>() {}
        shared::<Filter>();
    }

    #[test]
    fn infinities_and_invalid_utf8_are_rejected() {
        assert!(run("infinite", "null").is_err());
        assert!(run("\"//8=\" | @base64d", "null").is_err());
    }
}
