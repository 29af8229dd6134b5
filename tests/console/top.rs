//! The command `futurepool-top`.

use std::process::{Command, Output};

use futurepool::{ThreadPool, console};

use crate::client::{served, wait_for};

fn top(arguments: &[&str], token: Option<&str>) -> (Output, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_futurepool-top"));
    command
        .args(arguments)
        .env_remove("FUTUREPOOL_CONSOLE_TOKEN");
    if let Some(token) = token {
        command.env("FUTUREPOOL_CONSOLE_TOKEN", token);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    (output, out, errors)
}

#[test]
fn it_prints_the_pools_once() {
    let console = served();
    let pool = ThreadPool::builder()
        .max_workers(1)
        .thread_name_prefix("top")
        .build()
        .unwrap();
    assert!(pool.submit(|| panic!("\u{1b}[2J evil")).join().is_err());
    pool.submit(|| ()).join().unwrap();
    wait_for(&console, "both jobs are counted", |all| {
        crate::client::pool(all, "top").filter(|pool| pool["totals"]["completed"] == 1)
    });
    let url = format!("http://{}/", console.local_addr());
    let (output, out, errors) = top(&["--once", &url], None);
    assert!(output.status.success(), "{errors}");
    assert!(
        out.contains("top (threads): ") && out.contains("top-0 "),
        "{out}"
    );
    assert!(
        out.contains("1 panicked") && out.contains("[2J evil"),
        "{out}"
    );
    assert!(
        !out.contains('\u{1b}'),
        "what a program says must not steer the terminal: {out}"
    );
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
#[test]
fn it_prints_why_a_pool_has_its_size() {
    let console = served();
    let builder = ThreadPool::builder().thread_name_prefix("top-sized");
    let pool = builder.auto_size(1..=1).build().unwrap();
    wait_for(&console, "the pool is shown", |all| {
        crate::client::pool(all, "top-sized")
    });
    let url = console.local_addr().to_string();
    let (output, out, errors) = top(&["--once", &url], None);
    assert!(output.status.success(), "{errors}");
    let decision =
        "  auto_size: worker limit 1, bounds 1 to 1: as many workers as processors (no change";
    let (_, own) = out
        .split_once("top-sized (threads)")
        .unwrap_or_else(|| panic!("{out}"));
    assert!(own.contains(decision), "{out}");
    drop(pool);
}

#[test]
fn it_needs_the_token_and_says_so() {
    let token = "0123456789abcdef";
    let console = console::builder()
        .token(token)
        .serve("127.0.0.1:0")
        .unwrap();
    let address = console.local_addr().to_string();
    let (output, _, errors) = top(&["--once", &address], None);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("FUTUREPOOL_CONSOLE_TOKEN"), "{errors}");
    assert!(top(&["--once", &address], Some(token)).0.status.success());
    assert!(
        top(&["--once", "--token", token, &address], None)
            .0
            .status
            .success()
    );
}

#[test]
fn it_explains_itself_and_refuses_what_it_does_not_know() {
    let (output, out, _) = top(&["--help"], None);
    assert!(output.status.success() && out.contains("--once"), "{out}");
    assert_eq!(top(&["--twice"], None).0.status.code(), Some(2));
    // A port on which nothing listens.
    let console = served();
    let address = console.local_addr().to_string();
    console.shutdown();
    assert_eq!(top(&["--once", &address], None).0.status.code(), Some(1));
}
