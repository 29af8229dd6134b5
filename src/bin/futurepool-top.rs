//! Shows the console of a program in a terminal, as `top` shows processes.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

const HELP: &str = "\
Shows the pools of a program that serves a futurepool console.

Usage: futurepool-top [OPTIONS] [ADDRESS]

ADDRESS is host:port, and 127.0.0.1:6670 by default.

  --once           print once and exit, for scripts
  --token TOKEN    the console's token (others can see it in the list of processes: rather set the
                   variable FUTUREPOOL_CONSOLE_TOKEN)
  --help           print this
  --version        print the version

Without --once it prints anew each second, until Ctrl-C. The exit status is 1 if the console cannot
be reached, and 2 if the arguments are wrong.
";

struct Options {
    address: String,
    token: Option<String>,
    once: bool,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("futurepool-top: {problem} (see --help)");
            return ExitCode::from(2);
        }
    };
    loop {
        let text = ask(&options).map(|snapshot| render(&snapshot));
        if options.once {
            return match text {
                Ok(text) => print(&text),
                Err(problem) => {
                    eprintln!("futurepool-top: {}: {problem}", options.address);
                    ExitCode::FAILURE
                }
            };
        }
        let text = text.unwrap_or_else(|problem| format!("{}: {problem}\n", options.address));
        // From the top, each line to its end, and then the rest of the screen.
        let text = format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"));
        if print(&text) != ExitCode::SUCCESS {
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Fails if nothing reads the output any longer, as after `| head`.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn options() -> Result<Option<Options>, String> {
    let mut options = Options {
        address: "127.0.0.1:6670".to_owned(),
        token: std::env::var("FUTUREPOOL_CONSOLE_TOKEN").ok(),
        once: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => {
                print(HELP);
                return Ok(None);
            }
            "--version" => {
                print(concat!("futurepool-top ", env!("CARGO_PKG_VERSION"), "\n"));
                return Ok(None);
            }
            "--once" => options.once = true,
            "--token" => options.token = Some(arguments.next().ok_or("--token needs a value")?),
            other if other.starts_with('-') => return Err(format!("unknown option {other}")),
            address => {
                let address = address.strip_prefix("http://").unwrap_or(address);
                options.address = address.trim_end_matches('/').to_owned();
            }
        }
    }
    Ok(Some(options))
}

/// Asks the console for its figures.
fn ask(options: &Options) -> Result<Value, String> {
    let text = |error: io::Error| error.to_string();
    let patience = Duration::from_secs(5);
    let mut addresses = options.address.to_socket_addrs().map_err(text)?;
    let address = addresses.next().ok_or("no such address")?;
    let mut stream = TcpStream::connect_timeout(&address, patience).map_err(text)?;
    stream.set_read_timeout(Some(patience)).map_err(text)?;
    let mut head = format!(
        "GET /snapshot.json HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        options.address
    );
    if let Some(token) = &options.token {
        let is_plain = |c: char| c.is_ascii() && !c.is_ascii_control();
        if !token.chars().all(is_plain) {
            return Err("the token has characters that cannot be sent".to_owned());
        }
        let _ = write!(head, "Authorization: Bearer {token}\r\n");
    }
    head += "\r\n";
    stream.write_all(head.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    stream
        .take(64 << 20)
        .read_to_end(&mut answer)
        .map_err(text)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or("no answer of a console")?;
    match head.split(' ').nth(1) {
        Some("200") => serde_json::from_str(body).map_err(|_| "no console".to_owned()),
        Some("401") => Err("it needs its token: set FUTUREPOOL_CONSOLE_TOKEN".to_owned()),
        _ => Err(body.trim().to_owned()),
    }
}

fn render(snapshot: &Value) -> String {
    let mut text = String::new();
    let program = clean(&snapshot["program"]);
    let _ = writeln!(text, "{program}, process {}", snapshot["pid"]);
    for pool in list(&snapshot["pools"]) {
        render_pool(&mut text, snapshot, pool);
    }
    let incidents = list(&snapshot["incidents"]);
    if !incidents.is_empty() {
        let _ = writeln!(text, "\nproblems: {}", incidents.len());
    }
    for incident in incidents.iter().take(5) {
        let _ = writeln!(
            text,
            "  {:<14} {:>9} ago  {} {} {}",
            clean(&incident["kind"]),
            time(incident["ago_us"].as_f64()),
            clean(&incident["message"]),
            clean(&incident["what"]),
            clean(&incident["place"]),
        );
    }
    text
}

fn render_pool(text: &mut String, snapshot: &Value, pool: &Value) {
    let state = match pool["state"].as_str() {
        Some("open") | None => String::new(),
        Some(state) => format!(", {state}"),
    };
    let rate = |name: &str| pool["rates"][name].as_f64().unwrap_or(0.0);
    let of = |part: &str, name: &str| time(pool[part][name].as_f64());
    let oldest = match pool["oldest"]["us"].as_f64() {
        Some(us) => format!(" (oldest {})", time(Some(us))),
        None => String::new(),
    };
    let totals = &pool["totals"];
    let _ = write!(
        text,
        "\n{} ({}{state}): {} of {} workers run jobs, {} queued{oldest}\n  \
         {:.0}/s submitted, {:.0}/s finished; run p50 {} p99 {}; wait p50 {} p99 {}\n  \
         {} completed, {} panicked, {} cancelled, {} failed, {} refused\n",
        clean(&pool["name"]),
        clean(&pool["kind"]),
        pool["running"],
        pool["workers"],
        pool["queued"],
        rate("submitted"),
        rate("finished"),
        of("run_time", "p50_us"),
        of("run_time", "p99_us"),
        of("queue_wait", "p50_us"),
        of("queue_wait", "p99_us"),
        totals["completed"],
        totals["panicked"],
        totals["cancelled"],
        totals["failed"],
        totals["rejected"],
    );
    for lane in list(&pool["lanes"]) {
        let what = lane["what"]
            .as_u64()
            .map(|what| &snapshot["whats"][what as usize]);
        let what = what.map(|what| match what["label"].is_string() {
            true => clean(&what["label"]),
            false => clean(&what["place"]),
        });
        let busy = 100.0 * lane["busy"].as_f64().unwrap_or(0.0);
        let age = lane["age"]["us"].as_f64();
        let _ = writeln!(
            text,
            "  {:<20} {busy:>4.0} %  {:<9} {:>9}  {}",
            clean(&lane["name"]),
            clean(&lane["state"]),
            age.map_or_else(String::new, |us| time(Some(us))),
            what.unwrap_or_default(),
        );
    }
    for process in list(&pool["processes"]) {
        let mebibytes = process["memory"].as_f64().unwrap_or(0.0) / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "  process {:<12} {:<9} {mebibytes:>7.1} MiB  {} jobs  {}",
            process["pid"],
            clean(&process["state"]),
            process["jobs_done"],
            clean(&process["task"]),
        );
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns a text without the characters that would steer the terminal.
fn clean(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.replace(char::is_control, " ")
}

/// Formats microseconds.
fn time(us: Option<f64>) -> String {
    match us {
        None => "–".to_owned(),
        Some(us) if us < 1e3 => format!("{us:.1} µs"),
        Some(us) if us < 1e6 => format!("{:.1} ms", us / 1e3),
        Some(us) => format!("{:.1} s", us / 1e6),
    }
}
