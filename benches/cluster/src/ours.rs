//! This crate: a server, this process as the submitter, and two workers.

use std::collections::BTreeSet;
use std::env;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::process::{Command, Stdio, exit, id as own_process};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::JoinHandle;
use futurepool_cluster::Cluster;

use crate::burst::Meter;
use crate::child::{Guarded, cpu_time, resident, wait_until};
use crate::participants::{Environment, Scale, Session, p50_and_p99};
use crate::result::Sample;
use crate::rows::Row;
use crate::server::Server;
use crate::tasks::{Idempotent, Kind, Once, process};

/// The argument with which this program becomes the submitter whose memory is measured.
pub const HOLD: &str = "--hold";

const NAMESPACE: &str = "bench";
const WORKERS: usize = 2;
const SLOTS: usize = 8;
/// How long a result may take, so that nothing waits for ever.
const LIMIT: Duration = Duration::from_secs(60);
/// How many jobs wait in [`Row::Memory`].
const HELD: u64 = 10_000;
/// A queue that no worker serves.
const UNSERVED: &str = "unserved";

pub(crate) struct Ours<K> {
    // Fields are dropped in this order: the submitter first, the server last.
    cluster: Cluster,
    workers: Vec<Guarded>,
    server: Server,
    kind: PhantomData<K>,
}

impl<K: Kind> Ours<K> {
    pub(crate) fn start(environment: &Environment) -> Result<Self, String> {
        let server = Server::start(&environment.nats)?;
        let workers: Result<Vec<_>, _> = (0..WORKERS).map(|_| worker(&server)).collect();
        let mut ours = Self {
            cluster: connect(&server.url())?,
            workers: workers?,
            server,
            kind: PhantomData,
        };
        ours.wait_for_workers()?;
        // The first calls make consumers, threads and estimates.
        ours.burst(500)?;
        ours.trips(100)?;
        Ok(ours)
    }

    fn wait_for_workers(&mut self) -> Result<(), String> {
        wait_until("the workers", LIMIT, || {
            self.workers.iter_mut().try_for_each(Guarded::check)?;
            let submit = |_| self.cluster.submit(process::call());
            let handles: Vec<_> = (0..WORKERS * SLOTS).map(submit).collect();
            let processes: Result<BTreeSet<_>, _> = handles.into_iter().map(join).collect();
            Ok(processes?.len() == WORKERS)
        })
    }

    fn meter(&self) -> Result<Meter, String> {
        let workers: Vec<_> = self.workers.iter().map(Guarded::pid).collect();
        Meter::read(&self.server, &workers)
    }

    fn trips(&self, count: u64) -> Result<Vec<Duration>, String> {
        let trip = |_| {
            let start = Instant::now();
            join(self.cluster.submit(K::empty()))?;
            Ok(start.elapsed())
        };
        (0..count).map(trip).collect()
    }

    fn burst(&self, count: u64) -> Result<Duration, String> {
        let start = Instant::now();
        let submit = |number| self.cluster.submit(K::identity(number));
        let handles: Vec<_> = (0..count).map(submit).collect();
        let mut sum = 0;
        for handle in handles {
            sum += join(handle)?;
        }
        let elapsed = start.elapsed();
        match sum == count * (count - 1) / 2 {
            true => Ok(elapsed),
            false => Err("a result is wrong".to_owned()),
        }
    }

    fn sleeps(&self, count: u64) -> Result<Duration, String> {
        let start = Instant::now();
        let submit = |_| self.cluster.submit(K::sleep());
        let handles: Vec<_> = (0..count).map(submit).collect();
        handles.into_iter().try_for_each(join)?;
        Ok(start.elapsed())
    }

    /// Returns the shares of one core that a worker, the submitter and the server take.
    fn idle(&self, time: Duration) -> Sample {
        // What the last jobs left behind is done.
        thread::sleep(Duration::from_millis(500));
        let workers = self.workers.iter().map(Guarded::pid);
        let processes: Vec<_> = workers.chain([own_process(), self.server.pid()]).collect();
        let times = || {
            processes
                .iter()
                .map(|&pid| cpu_time(pid))
                .collect::<Vec<_>>()
        };
        let (start, before) = (Instant::now(), times());
        thread::sleep(time);
        let (elapsed, after) = (start.elapsed(), times());
        let share = |(before, after): (&Option<Duration>, &Option<Duration>)| {
            let used = (*after)?.checked_sub((*before)?)?;
            Some(used.as_secs_f64() / elapsed.as_secs_f64())
        };
        let shares: Vec<_> = before.iter().zip(&after).map(share).collect();
        let (workers, others) = shares.split_at(WORKERS);
        // The worker that takes more counts.
        let worker = workers.iter().copied().flatten().reduce(f64::max);
        [&[worker], others].concat()
    }

    fn memory(&self) -> Result<Sample, String> {
        let own = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command.args([HOLD, &self.server.url(), K::NAME]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Guarded::spawn(&mut command)?;
        // It bounds its own waits.
        let text = holder.line()?;
        let [before, after]: [f64; 2] = serde_json::from_str(&text)
            .map_err(|error| format!("not two figures: {text:?}: {error}"))?;
        let each = (after - before) / HELD as f64;
        Ok(vec![Some(each), Some(after), self.server.resident()])
    }
}

impl<K: Kind> Session for Ours<K> {
    fn measure(&mut self, row: Row, scale: Scale) -> Result<Sample, String> {
        match row {
            Row::Trip => Ok(p50_and_p99(self.trips(scale.of(1_000))?)),
            Row::Burst => {
                let count = scale.of(10_000);
                let before = self.meter()?;
                let elapsed = self.burst(count)?;
                // What is left to remove belongs to the burst.
                thread::sleep(Duration::from_millis(200));
                Ok(before.sample(&self.meter()?, elapsed, count))
            }
            Row::HundredThousand => Ok(vec![Some(self.burst(100_000)?.as_secs_f64())]),
            Row::Sleeps => {
                let count = scale.of(3_200);
                let slots = (WORKERS * SLOTS) as f64;
                let ideal = count as f64 / slots * crate::tasks::SLEEP.as_secs_f64();
                Ok(vec![Some(self.sleeps(count)?.as_secs_f64() / ideal)])
            }
            Row::Idle => Ok(self.idle(Duration::from_secs(if scale.quick { 2 } else { 10 }))),
            Row::Memory => self.memory(),
        }
    }
}

fn connect(url: &str) -> Result<Cluster, String> {
    let builder = Cluster::connect(url).namespace(NAMESPACE);
    builder.build().map_err(|error| error.to_string())
}

fn worker(server: &Server) -> Result<Guarded, String> {
    let program = program().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args([&server.url(), NAMESPACE, &SLOTS.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    Guarded::spawn(&mut command)
}

/// Returns the path of the worker, which `cargo` builds beside this program.
fn program() -> io::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("cluster-worker"))
}

fn join<T: Send + 'static>(mut handle: JoinHandle<T>) -> Result<T, String> {
    handle
        .join_timeout(LIMIT)
        .map_err(|error| error.to_string())
}

/// Submits jobs that no worker takes, prints the memory before and after, and waits for the end of its
/// input.
pub fn hold(url: &str, kind: &str) -> Result<(), String> {
    match kind {
        Once::NAME => hold_jobs::<Once>(url),
        Idempotent::NAME => hold_jobs::<Idempotent>(url),
        _ => Err(format!("unknown kind {kind:?}")),
    }
}

fn hold_jobs<K: Kind>(url: &str) -> Result<(), String> {
    let builder = Cluster::connect(url).namespace(NAMESPACE).queue(UNSERVED);
    let cluster = builder.build().map_err(|error| error.to_string())?;
    let memory = || resident(own_process()).ok_or("the memory is unknown");
    let before = memory()?;
    let submit = |number| cluster.submit(K::identity(number));
    let handles: Vec<_> = (0..HELD).map(submit).collect();
    wait_until("the publishes", LIMIT, || {
        Ok(handles.iter().all(|handle| handle.is_running()))
    })?;
    // The last ones are on their way.
    thread::sleep(Duration::from_millis(500));
    println!("[{before}, {}]", memory()?);
    let _ = io::stdout().flush();
    let _ = io::stdin().read(&mut [0]);
    // This process is killed: an end in good order would cancel each job.
    exit(0)
}
