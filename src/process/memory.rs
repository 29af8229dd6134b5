//! How much memory worker processes use.
//!
//! The shared part is left out: the program's own code and libraries are there once, however many
//! workers there are.

#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(unused_imports)]
pub(crate) use self::linux::{resident, resident_of_group, resident_of_groups};

/// Returns `None`: this system has no known way.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn resident(_pid: u32) -> Option<u64> {
    None
}

/// Returns `None`: this system has no known way.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn resident_of_group(_pgid: u32) -> Option<u64> {
    None
}

/// Returns `None` for each group: this system has no known way.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn resident_of_groups(pgids: &[u32]) -> Vec<Option<u64>> {
    vec![None; pgids.len()]
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::fs::{self, File};
    use std::io::Read;

    /// Returns the resident memory of a process in bytes, shared pages left out.
    ///
    /// Returns `None` if there is no such process, or `/proc` is not mounted. A zombie has 0 bytes.
    pub(crate) fn resident(pid: u32) -> Option<u64> {
        let pages = pages(&fs::read_to_string(format!("/proc/{pid}/statm")).ok()?)?;
        Some(pages.saturating_mul(rustix::param::page_size() as u64))
    }

    /// Returns the resident memory of all processes of a group in bytes, shared pages left out.
    ///
    /// Returns `None` if the group has no process, or `/proc` is not mounted. A process that ends
    /// meanwhile counts as nothing.
    pub(crate) fn resident_of_group(pgid: u32) -> Option<u64> {
        resident_of_groups(&[pgid]).pop()?
    }

    /// Returns the same for several groups, in order. It looks at all processes of the system once.
    pub(crate) fn resident_of_groups(pgids: &[u32]) -> Vec<Option<u64>> {
        let mut sums = vec![None; pgids.len()];
        let Ok(entries) = fs::read_dir("/proc") else {
            return sums;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // Not by `getpgid`: `rustix` does not expect the 0 that it returns for kernel threads.
            let Some(group) = group_of(pid) else {
                continue;
            };
            if let Some(at) = pgids.iter().position(|pgid| *pgid == group) {
                let more = resident(pid).unwrap_or(0);
                sums[at] = Some(sums[at].unwrap_or(0_u64).saturating_add(more));
            }
        }
        sums
    }

    fn group_of(pid: u32) -> Option<u32> {
        // The fields that are looked for are among the first 100 bytes. One `read` is enough.
        let mut line = [0; 256];
        let mut file = File::open(format!("/proc/{pid}/stat")).ok()?;
        let size = file.read(&mut line).ok()?;
        group(&line[..size])
    }

    /// Takes the process group from a line of `stat`.
    fn group(stat: &[u8]) -> Option<u32> {
        // The name of the program comes before, in parentheses. It may contain anything.
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = stat[end + 1..].split(u8::is_ascii_whitespace);
        // Nothing, the state, the parent, the group.
        let group = rest.skip(3).map(std::str::from_utf8).next()?;
        group.ok()?.parse().ok()
    }

    /// Takes the resident minus the shared pages from a line of `statm`.
    fn pages(statm: &str) -> Option<u64> {
        let mut fields = statm.split_ascii_whitespace().skip(1);
        let resident: u64 = fields.next()?.parse().ok()?;
        let shared = fields.next()?.parse().ok()?;
        Some(resident.saturating_sub(shared))
    }

    #[cfg(all(test, not(loom)))]
    mod tests {
        use std::io::Write;
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio, id};

        use super::*;

        #[test]
        fn shared_pages_are_left_out() {
            assert_eq!(pages("1000 300 100 5 0 50 0\n"), Some(200));
            assert_eq!(pages("1000 300 400 5 0 50 0\n"), Some(0));
            assert_eq!([pages(""), pages("1 2"), pages("1 x 3")], [None; 3]);
        }

        #[test]
        fn the_group_is_found_whatever_the_name_is() {
            assert_eq!(group(b"4711 (cat) S 1 4700 4600 0"), Some(4700));
            assert_eq!(
                group(b"4711 (a) S 1 2 (\xff) R 1 4701 4600 \xff"),
                Some(4701)
            );
            assert_eq!(group(b"2 (kthreadd) S 0 0 0 0"), Some(0));
            assert_eq!([group(b""), group(b"1 (x"), group(b"1 (x) S 1")], [None; 3]);
        }

        #[test]
        fn memory_that_is_written_to_counts() {
            let before = resident(id()).expect("this process is there");
            let size = 64 << 20;
            let block = vec![1_u8; size];
            let after = resident(id()).expect("this process is there");
            // Other tests run beside this one, and free some.
            let more = after.saturating_sub(before);
            assert!(more > size as u64 / 2, "{before} → {after}");
            assert!(block.iter().all(|byte| *byte == 1));
        }

        #[test]
        fn a_group_is_the_sum_of_its_processes() {
            // The shell is the leader, and `cat` its child.
            let mut shell = Command::new("sh")
                .args(["-c", "cat; exit 0"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .expect("a shell");
            let mut input = shell.stdin.take().expect("it is piped");
            let mut output = shell.stdout.take().expect("it is piped");
            input.write_all(b"x").expect("cat takes it");
            output.read_exact(&mut [0]).expect("cat runs");
            let leader = resident(shell.id()).expect("the shell is there");
            let group = resident_of_group(shell.id()).expect("both are there");
            assert!(leader > 0 && group > leader, "{leader} of {group}");
            let groups = resident_of_groups(&[u32::MAX, shell.id()]);
            assert!(groups[0].is_none() && groups[1] > Some(leader));
            drop(input);
            shell.wait().expect("its status");
            assert_eq!(resident_of_group(shell.id()), None);
            assert_eq!(resident(shell.id()), None);
        }
    }
}
