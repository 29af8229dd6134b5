"""Measures task queues and clusters of Python.

Arguments: the peer, one of PEERS. The word "versions" instead of it prints the versions of all.

Starts the peer's server and its workers: two with 8 slots each where the peer can. Prints "ready". Then
reads a line for each measurement, the workload and its amount of work, and prints the figures as a JSON
list: nanoseconds, or a multiple of the ideal time. Ends at the end of its input.
"""

import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import time

WORKERS = 2
SLOTS = 8
SLEEP = 0.01
# How long a result may take, so that nothing waits for ever.
LIMIT = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(port):
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


class Celery:
    """Workers as the page "Optimizing" of the documentation recommends for short tasks.

    - a prefetch multiplier of 64, which the page names for many short tasks; `-O fair` is the default
    - no gossip, mingle or events, which only monitors need
    - results in the same Redis, without those that the caller does not read
    """

    def __init__(self, pool, late):
        port = free_port()
        redis = os.environ.get("REDIS_SERVER", "redis-server")
        # Early acknowledgements lose tasks at a killed worker in any case, so Redis runs with its own
        # defaults: snapshots. Late ones are for tasks that must not be lost, so Redis keeps a log.
        log = ["--appendonly", "yes", "--appendfsync", "everysec"] if late else []
        address = ["--bind", "127.0.0.1", "--port", str(port)]
        self.children = [subprocess.Popen([redis, *address, *log], stdout=subprocess.DEVNULL)]
        wait_for_port(port)
        os.environ["CELERY_PEER_REDIS"] = f"redis://127.0.0.1:{port}/0"
        os.environ["CELERY_PEER_LATE"] = "1" if late else ""
        os.environ["PYTHONPATH"] = os.path.dirname(os.path.abspath(__file__))
        for number in range(WORKERS):
            command = [sys.executable, "-m", "celery", "-A", "celery_jobs", "worker"]
            command += ["--pool", pool, "--concurrency", str(SLOTS), "--hostname", f"w{number}@%h"]
            command += ["--without-gossip", "--without-mingle", "--loglevel", "ERROR"]
            self.children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        import celery_jobs

        self.jobs = celery_jobs
        # Each worker answers once it consumes.
        end = time.monotonic() + 30
        while len(celery_jobs.app.control.ping(timeout=0.5) or []) < WORKERS:
            assert time.monotonic() < end, "the workers did not start"

    def trip(self):
        self.jobs.empty.delay().get(timeout=LIMIT)

    # A `group` was tried: its `get` often waits for a second until it polls.
    def burst(self, count):
        results = [self.jobs.identity.delay(number) for number in range(count)]
        return [result.get(timeout=LIMIT) for result in results]

    def sleeps(self, count):
        results = [self.jobs.sleep.delay(SLEEP) for _ in range(count)]
        for result in results:
            result.get(timeout=LIMIT)

    def end(self):
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()


class Dask:
    """A scheduler and two workers of 8 threads, each a process of its own, without the dashboard.

    - `Client.map` for many calls, as its page "Efficiency" recommends
    - `pure=False`: each call runs, also if its arguments are those of another one
    """

    def __init__(self):
        from distributed import Client, SubprocessCluster

        self.cluster = SubprocessCluster(
            host="127.0.0.1",
            n_workers=WORKERS,
            threads_per_worker=SLOTS,
            dashboard_address=None,
            scheduler_kwargs={"dashboard": False},
            worker_kwargs={"dashboard": False, "nthreads": SLOTS},
        )
        self.client = Client(self.cluster)
        self.client.wait_for_workers(WORKERS, timeout=30)

    def trip(self):
        self.client.submit(empty, pure=False).result(timeout=LIMIT)

    def burst(self, count):
        return self.client.gather(self.client.map(identity, range(count), pure=False))

    def sleeps(self, count):
        self.client.gather(self.client.map(time.sleep, [SLEEP] * count, pure=False))

    def end(self):
        self.client.close()
        self.cluster.close()


class RayTasks:
    """Ray's own scheduler: 16 CPUs on one node, a worker process for each, no dashboard."""

    def __init__(self):
        import ray

        self.ray = ray
        # The server of the dashboard belongs to no measured job, nor does a copy of logs.
        ray.init(
            num_cpus=WORKERS * SLOTS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
        )
        self.make(ray)
        self.sleeps(2 * WORKERS * SLOTS)

    def make(self, ray):
        # A task holds a CPU, so that 16 run at once.
        self.remote_empty = ray.remote(empty)
        self.remote_identity = ray.remote(identity)
        self.remote_sleep = ray.remote(sleep)

    def trip(self):
        self.ray.get(self.remote_empty.remote(), timeout=LIMIT)

    def burst(self, count):
        references = [self.remote_identity.remote(number) for number in range(count)]
        return self.ray.get(references, timeout=LIMIT)

    def sleeps(self, count):
        references = [self.remote_sleep.remote(SLEEP) for _ in range(count)]
        self.ray.get(references, timeout=LIMIT)

    def end(self):
        self.ray.shutdown()


class RayActors(RayTasks):
    """Two actors of 8 threads each: the caller chooses the actor, here in turn."""

    def make(self, ray):
        actor = ray.remote(Actor).options(max_concurrency=SLOTS, num_cpus=1)
        self.actors = [actor.remote() for _ in range(WORKERS)]

    def trip(self):
        self.ray.get(self.actors[0].empty.remote(), timeout=LIMIT)

    def burst(self, count):
        actors = self.actors
        references = [actors[number % WORKERS].identity.remote(number) for number in range(count)]
        return self.ray.get(references, timeout=LIMIT)

    def sleeps(self, count):
        actors = self.actors
        references = [actors[number % WORKERS].sleep.remote(SLEEP) for number in range(count)]
        self.ray.get(references, timeout=LIMIT)


def empty():
    pass


def identity(number):
    return number


def sleep(seconds):
    time.sleep(seconds)


class Actor:
    def empty(self):
        pass

    def identity(self, number):
        return number

    def sleep(self, seconds):
        time.sleep(seconds)


PEERS = {
    "celery-prefork": lambda: Celery("prefork", late=False),
    "celery-prefork-late": lambda: Celery("prefork", late=True),
    "celery-threads": lambda: Celery("threads", late=False),
    "celery-threads-late": lambda: Celery("threads", late=True),
    "dask": Dask,
    "ray-tasks": RayTasks,
    "ray-actors": RayActors,
}


def trip(peer, count):
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        peer.trip()
        times.append(time.perf_counter_ns() - start)
    times.sort()
    return [times[len(times) // 2], times[len(times) * 99 // 100]]


def burst(peer, count):
    start = time.perf_counter_ns()
    total = sum(peer.burst(count))
    elapsed = time.perf_counter_ns() - start
    assert total == count * (count - 1) // 2
    return [elapsed / count]


def sleeps(peer, count):
    start = time.perf_counter_ns()
    peer.sleeps(count)
    elapsed = time.perf_counter_ns() - start
    return [elapsed / (count / (WORKERS * SLOTS) * SLEEP * 1e9)]


WORKLOADS = {"trip": trip, "burst": burst, "sleeps": sleeps}


def versions():
    packages = ["celery", "redis", "distributed", "ray"]
    found = {"CPython": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def main():
    if sys.argv[1] == "versions":
        print(json.dumps(versions()))
        return
    # Only answers go to the standard output. Libraries and workers print to the other one.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = PEERS[sys.argv[1]]()
    try:
        # The first calls make connections and start processes.
        burst(peer, 200)
        trip(peer, 20)
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            workload, count = line.split()
            figures = WORKLOADS[workload](peer, int(count))
            print(json.dumps(figures), file=answers, flush=True)
    finally:
        peer.end()


if __name__ == "__main__":
    main()
