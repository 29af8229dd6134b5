//! A forked process has copies of its parent's pools. They must not harm the parent's workers.

use std::{process, thread};

use futurepool::{ProcessPool, task};

use crate::common::{child, eventually};
use crate::forking::in_forked_process;

#[task]
fn pid() -> u32 {
    process::id()
}

#[task]
fn wait_for(path: String) -> u32 {
    while !std::path::Path::new(&path).exists() {
        thread::yield_now();
    }
    process::id()
}

#[test]
fn in_a_forked_process_old_pools_harm_nothing_and_a_new_one_works() {
    child::alone(
        "forked::in_a_forked_process_old_pools_harm_nothing_and_a_new_one_works",
        || {
            let one = || ProcessPool::builder().max_workers(1).build().unwrap();
            let (unused, idle, busy) = (one(), one(), one());
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("go").to_str().unwrap().to_owned();
            let before = idle.submit(pid::call()).join().unwrap();
            let running = busy.submit(wait_for::call(path.clone()));
            eventually("it runs", || {
                busy.workers().iter().any(|worker| worker.task.is_some())
            });
            let worker = busy.workers()[0].pid;
            let mut of_the_child = Some([unused, idle, busy]);
            let mut handle = Some(running);
            assert!(in_forked_process(|| {
                let pools = of_the_child.take().unwrap();
                for pool in &pools {
                    let error = pool.submit(pid::call()).join().unwrap_err();
                    assert!(error.is_broken(), "{error}");
                    drop(pool.try_submit(pid::call()).unwrap_err());
                    let refused = futurepool::block_on(pool.submit_async(pid::call()));
                    assert_eq!(refused.unwrap_err().into_inner().run(), process::id());
                    let mut results = pool.map([pid::call(), pid::call()]).into_iter();
                    assert!(results.next().unwrap().unwrap_err().is_broken());
                    assert!(results.next().is_none());
                }
                let running = handle.take().unwrap();
                drop(running);
                drop(pools);
                let new = ProcessPool::builder().max_workers(1).build().unwrap();
                let of_new = new.submit(pid::call()).join().unwrap();
                of_new != worker && of_new != before
            }));
            let [_unused, idle, busy] = of_the_child.take().unwrap();
            std::fs::write(path, "").unwrap();
            assert_eq!(handle.take().unwrap().join().unwrap(), worker);
            assert_eq!(idle.submit(pid::call()).join().unwrap(), before);
            assert_eq!(busy.submit(pid::call()).join().unwrap(), worker);
        },
    );
}
