//! Child processes, and what `/proc` says about a process.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// A child process that is killed when it is dropped.
pub(crate) struct Guarded(Child);

impl Guarded {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, String> {
        let spawned = command.spawn();
        let spawned = spawned.map_err(|error| format!("{:?}: {error}", command.get_program()));
        spawned.map(Self)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Returns an error if the process has ended.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        match self.0.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("process {} has ended: {status}", self.pid())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Reads a line of its standard output, which must be piped.
    pub(crate) fn line(&mut self) -> Result<String, String> {
        let output = self.0.stdout.as_mut().ok_or("the output is not piped")?;
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        read.map_err(|error| error.to_string())?;
        Ok(line)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a port of the loopback interface that nothing uses.
pub(crate) fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

pub(crate) fn connect(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(5))
}

/// Calls `ready` until it returns `true`, at most for `limit`.
pub(crate) fn wait_until(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let end = Instant::now() + limit;
    while !ready()? {
        if Instant::now() > end {
            return Err(format!("{what}: not within {} s", limit.as_secs()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Returns the CPU time of all threads of a process, to the nanosecond. Only Linux tells.
///
/// Threads that have ended are left out.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let on_cpu = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let nanos = threads.flatten().filter_map(on_cpu).sum();
    Some(Duration::from_nanos(nanos))
}

/// Returns the memory of a process that is in use and not swapped, in bytes. Only Linux tells.
pub(crate) fn resident(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_this_process_grows() {
        let own = std::process::id();
        let before = cpu_time(own).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while cpu_time(own).unwrap() < before + Duration::from_millis(2) {
            assert!(Instant::now() < end);
        }
        assert!(resident(own).unwrap() > 100_000.0);
    }

    #[test]
    fn a_child_that_has_ended_is_noticed() {
        let mut child = Guarded::spawn(&mut Command::new("true")).unwrap();
        let ended = || Ok(child.check().is_err());
        wait_until("the end", Duration::from_secs(60), ended).unwrap();
        let error = Guarded::spawn(&mut Command::new("/missing")).err().unwrap();
        assert!(error.starts_with("\"/missing\": "), "{error}");
    }
}
