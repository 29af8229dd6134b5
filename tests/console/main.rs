//! The console: its figures, who can see it, and its page in a real browser.

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
#[path = "../common/mod.rs"]
mod common;

mod pictures;
mod webdriver;
