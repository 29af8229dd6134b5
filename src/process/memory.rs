//! How much memory worker processes use.
//!
//! The shared part is left out: the program's own code and libraries are there once, however many
//! workers there are.

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use self::linux::{resident, resident_of_group};

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

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::collections::HashMap;
    use std::fs::{self, File};
    use std::io::Read;
    use std::time::{Duration, Instant};

    use crate::util::sync::{Arc, Mutex, process_wide};

    /// Returns the resident memory of a process in bytes, shared pages left out.
    ///
    /// Returns `None` if there is no such process, or `/proc` is not mounted. A zombie has 0 bytes.
    pub(crate) fn resident(pid: u32) -> Option<u64> {
        let pages = pages(&fs::read_to_string(format!("/proc/{pid}/statm")).ok()?)?;
        Some(pages.saturating_mul(rustix::param::page_size() as u64))
    }

    /// Returns the resident memory of all processes of a group in bytes, shared pages left out.
    ///
    /// A process that joined the group within the last 100 ms may be left out, except the leader. A
    /// process that ends meanwhile counts as nothing.
    ///
    /// Returns `None` if the group has no process, or `/proc` is not mounted.
    pub(crate) fn resident_of_group(pgid: u32) -> Option<u64> {
        let groups = groups(FRESH);
        let members = groups.members.get(&pgid).map_or(&[][..], Vec::as_slice);
        let others = members.iter().filter(|pid| **pid != pgid);
        others
            .chain([&pgid])
            // The number may be another process's by now.
            .filter(|pid| group_of(**pid) == Some(pgid))
            .map(|pid| resident(*pid).unwrap_or(0))
            .reduce(u64::saturating_add)
    }

    /// How long a list of processes is used.
    const FRESH: Duration = Duration::from_millis(100);

    /// The processes of the system, by group.
    #[derive(Debug)]
    struct Groups {
        listed: Instant,
        members: HashMap<u32, Vec<u32>>,
    }

    process_wide! {
        /// The last list. To make one takes milliseconds, too much for each worker.
        static GROUPS: Mutex<Option<Arc<Groups>>> = Mutex::new(None);
    }

    /// Returns a list that is younger than `fresh`.
    fn groups(fresh: Duration) -> Arc<Groups> {
        if let Some(last) = GROUPS.lock().as_ref() {
            if last.listed.elapsed() < fresh {
                return Arc::clone(last);
            }
        }
        // Two threads may both do this: no system call runs under a lock.
        let groups = Arc::new(Groups {
            listed: Instant::now(),
            members: list(),
        });
        let mut last = GROUPS.lock();
        if last.as_ref().is_none_or(|last| last.listed < groups.listed) {
            let old = last.replace(Arc::clone(&groups));
            // A large list is freed outside of the lock.
            drop(last);
            drop(old);
        }
        groups
    }

    fn list() -> HashMap<u32, Vec<u32>> {
        let mut members: HashMap<u32, Vec<u32>> = HashMap::new();
        // Without `/proc` there are none.
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok());
            // Not by `getpgid`: `rustix` does not expect the 0 that it returns for kernel threads.
            if let Some((pid, group)) = pid.and_then(|pid| Some((pid, group_of(pid)?))) {
                members.entry(group).or_default().push(pid);
            }
        }
        members
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
        use std::io::{BufRead, BufReader, Write};
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
        fn workers_share_a_list_of_processes() {
            let first = groups(Duration::ZERO);
            assert!(!Arc::ptr_eq(&first, &groups(Duration::ZERO)));
            // Another test may list them in between.
            let is_shared = || Arc::ptr_eq(&groups(Duration::ZERO), &groups(Duration::MAX));
            assert!((0..100).any(|_| is_shared()));
            let own = id();
            let is_listed = |pids: &Vec<u32>| pids.contains(&own);
            assert!(first.members.values().any(is_listed));
        }

        #[test]
        fn a_leader_counts_before_it_is_listed() {
            groups(Duration::ZERO);
            let mut leader = Command::new("cat")
                .stdin(Stdio::piped())
                .process_group(0)
                .spawn()
                .expect("a cat");
            assert!(resident_of_group(leader.id()).is_some());
            drop(leader.stdin.take());
            leader.wait().expect("its status");
        }

        #[test]
        fn a_group_is_the_sum_of_its_processes() {
            // The shell is the leader, and `cat` its child.
            let mut shell = Command::new("sh")
                .args(["-c", "exec 3<&0; cat <&3 & echo $!; wait"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .expect("a shell");
            let mut input = shell.stdin.take().expect("it is piped");
            let mut output = BufReader::new(shell.stdout.take().expect("it is piped"));
            let mut line = String::new();
            output.read_line(&mut line).expect("the shell runs");
            let cat = line.trim().parse().expect("the process id of cat");
            input.write_all(b"x").expect("cat takes it");
            output.read_exact(&mut [0]).expect("cat runs");
            let leader = resident(shell.id()).expect("the shell is there");
            let cat = resident(cat).expect("cat is there");
            // The list may be older than `cat`, for a tenth of a second.
            groups(Duration::ZERO);
            let group = resident_of_group(shell.id()).expect("both are there");
            // The system may take pages from them meanwhile.
            let sum = leader.min(cat) > 0 && group > (leader + cat) / 10 * 9;
            assert!(sum, "{leader} + {cat}: {group}");
            drop(input);
            shell.wait().expect("its status");
            assert_eq!(resident_of_group(shell.id()), None);
            assert_eq!(resident(shell.id()), None);
        }
    }
}
