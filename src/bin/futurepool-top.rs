//! Shows the console of a program in a terminal, as `top` shows processes.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
Shows the pools of a program that serves a futurepool console.

Usage: futurepool-top [OPTIONS] [ADDRESS]

ADDRESS is host:port, and 127.0.0.1:6670 by default.

  --once           print once and exit, for scripts (rates are unknown at the first look: call it
                   twice, a second apart)
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
        let text = ask(&options);
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

/// Connects to the first of the addresses that answers: `localhost` can have two.
fn connect(address: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no such address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Asks the console for its figures.
fn ask(options: &Options) -> Result<String, String> {
    let text = |error: io::Error| error.to_string();
    let patience = Duration::from_secs(5);
    let mut stream = connect(&options.address, patience).map_err(text)?;
    stream.set_read_timeout(Some(patience)).map_err(text)?;
    let mut head = format!(
        "GET /snapshot.txt HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        options.address
    );
    if let Some(token) = &options.token {
        let is_plain = |c: char| c.is_ascii() && !c.is_ascii_control();
        if !token.chars().all(is_plain) {
            return Err("the token has characters that cannot be sent".to_owned());
        }
        head += &format!("Authorization: Bearer {token}\r\n");
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
        // What another program says must not steer the terminal.
        Some("200") => Ok(body.replace(|c: char| c.is_control() && c != '\n', " ")),
        Some("401") => Err("it needs its token: set FUTUREPOOL_CONSOLE_TOKEN".to_owned()),
        _ => Err("no console answers there".to_owned()),
    }
}
