//! Tests of the errors: where each points, and what it says. What the expansion does is tested in the
//! crate `futurepool`.

use std::str::FromStr;

use proc_macro2::TokenStream;

use crate::expand::try_task;

/// Returns the place that each error points at, as it is written, and the text of the error.
fn errors(options: &str, function: &str) -> Vec<(String, String)> {
    let options = TokenStream::from_str(options).unwrap();
    let function = TokenStream::from_str(function).unwrap();
    let Err(errors) = try_task(options, function) else {
        return Vec::new();
    };
    let place = |error: &syn::Error| error.span().source_text().unwrap_or_default();
    errors
        .into_iter()
        .map(|error| (place(&error), error.to_string()))
        .collect()
}

#[track_caller]
fn assert_error(options: &str, function: &str, place: &str, text: &str) {
    let errors = errors(options, function);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].0, place, "{errors:?}");
    assert!(errors[0].1.contains(text), "{errors:?}");
}

#[track_caller]
fn assert_function_error(function: &str, place: &str, text: &str) {
    assert_error("", function, place, text);
}

#[track_caller]
fn assert_option_error(options: &str, place: &str, text: &str) {
    assert_error(options, "fn f() {}", place, text);
}

#[test]
fn what_is_right_has_no_error() {
    for function in [
        "fn f() {}",
        "pub(crate) fn f(mut a: u8, _b: Vec<u8>) -> Result<(), String> { Ok(()) }",
        "const fn f(a: u8) -> u8 { a }",
        "extern \"C\" fn f(a: u8) -> u8 { a }",
        "fn f(a: std::borrow::Cow<'static, str>, b: [u8; 4], r#type: u8) {}",
    ] {
        assert_eq!(errors("", function), [], "{function}");
    }
    for options in [
        "",
        "name = \"a.b\", version = 2, idempotent, attempts = 5, type = A, crate = a::b,",
        "attempts = 1, idempotent",
    ] {
        assert_eq!(errors(options, "fn f() {}"), [], "{options}");
    }
}

#[test]
fn async_functions() {
    assert_function_error("async fn f() {}", "async", "`futurepool::block_on`");
}

#[test]
fn unsafe_functions() {
    let function = format!("{} fn f() {{}}", concat!("un", "safe"));
    assert_function_error(
        &function,
        concat!("un", "safe"),
        "a task is a safe function",
    );
}

#[test]
fn methods() {
    let text = "move the function out of the `impl` block";
    assert_function_error("fn f(&self, a: u8) {}", "self", text);
    assert_function_error("fn f(self: Box<Self>) {}", "self", text);
}

#[test]
fn generic_functions() {
    let text = "Write `impl Task for …` by hand";
    assert_function_error("fn f<T: Send, U>(a: T, b: U) {}", "T: Send, U", text);
    assert_function_error(
        "fn f<const N: usize>(a: [u8; N]) {}",
        "const N: usize",
        text,
    );
}

#[test]
fn borrowed_arguments() {
    for (ty, owned) in [
        ("&str", "String"),
        ("&'static str", "String"),
        ("&[u8]", "Vec<u8>"),
        ("&mut Vec<u8>", "Vec<u8>"),
        ("&std::path::Path", "PathBuf"),
        ("&Picture", "Picture"),
    ] {
        let function = format!("fn f(a: {ty}) {{}}");
        assert_function_error(&function, ty, &format!("write `{owned}` instead of `&"));
    }
    let text = "use types that own what they hold";
    assert_function_error("fn f(a: Vec<&str>) {}", "&", text);
    assert_function_error("fn f(a: (u8, Option<Cow<'_, str>>)) {}", "_", text);
}

#[test]
fn borrowed_outputs() {
    assert_function_error(
        "fn f() -> &'static str { \"\" }",
        "&'static str",
        "the output travels",
    );
    assert_function_error(
        "fn f() -> Option<&'static str> { None }",
        "&",
        "the output travels",
    );
}

#[test]
fn types_without_a_name() {
    assert_function_error("fn f(a: impl Send) {}", "impl Send", "write the type");
    assert_function_error("fn f() -> impl Send {}", "impl Send", "write the type");
    assert_function_error("fn f() -> ! { loop {} }", "!", "a task returns");
}

#[test]
fn parameters_that_are_patterns() {
    let text = "give this parameter a plain name";
    assert_function_error("fn f((a, b): (u8, u8)) {}", "(a, b)", text);
    assert_function_error("fn f(_: u8) {}", "_", text);
    assert_function_error("fn f(a @ 1..: u8) {}", "a @ 1..", text);
    assert_function_error("fn f(ref a: u8) {}", "ref a", text);
    let text = "put the `cfg` on the function";
    assert_function_error("fn f(#[cfg(unix)] a: u8) {}", "#[cfg(unix)]", text);
}

#[test]
fn all_errors_of_a_function_come_at_once() {
    let errors = errors(
        "size = 3",
        "async fn f(&self, a: &str, (b, c): (u8, u8)) {}",
    );
    let places: Vec<_> = errors.iter().map(|(place, _)| &**place).collect();
    assert_eq!(places, ["size", "async", "self", "&str", "(b, c)"]);
}

#[test]
fn what_is_no_function() {
    for item in [
        "struct S;",
        "trait T { fn f(); }",
        "fn f(a: u8);",
        "static A: fn() = f;",
    ] {
        let errors = errors("", item);
        assert!(
            errors[0].1.contains("belongs on a function with a body"),
            "{item}: {errors:?}"
        );
    }
}

#[test]
fn unknown_options() {
    assert_option_error(
        "size = 3",
        "size",
        "no option `size`. The options are `name",
    );
    assert_option_error("Idempotent", "Idempotent", "no option `Idempotent`");
    assert_option_error("\"name\"", "\"name\"", "the options of `#[task]` are `name");
}

#[test]
fn options_that_are_given_twice() {
    for option in [
        "name = \"a\"",
        "version = 1",
        "idempotent",
        "type = A",
        "crate = a",
    ] {
        let key = option.split(' ').next().unwrap();
        assert_option_error(&format!("{option}, {option}"), key, "is given twice");
    }
    assert_option_error(
        "idempotent, attempts = 1, attempts = 2",
        "attempts",
        "given twice",
    );
}

#[test]
fn values_of_options() {
    assert_option_error("name = \"\"", "\"\"", "cannot be empty");
    assert_option_error("name = \" \"", "\" \"", "cannot be empty");
    assert_option_error("name = 3", "3", "`name` needs a text");
    assert_option_error("name", "name", "`name` needs a text");
    assert_option_error("version = \"2\"", "\"2\"", "`version` needs a number");
    assert_option_error("version = 5000000000", "5000000000", "too large");
    assert_option_error("idempotent, attempts = 0", "0", "starts at least once");
    assert_option_error("attempts = 2", "attempts", "add `idempotent`");
    assert_option_error("idempotent = true", "=", "write it alone");
    assert_option_error("type = \"A\"", "\"A\"", "`type` needs a name");
}
