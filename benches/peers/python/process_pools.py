"""Measures pools of worker processes of Python.

Arguments: the pool, the workload, the amount of work, and the processors of the caller and of the
worker if they are pinned apart. The workload "probe" prints the version of the pool and ends.

Runs the workload each time when it reads a line, and prints its figures as a JSON list: nanoseconds
(of bytes, per byte each way), or null for what the pool cannot do. Ends at the end of its input.
"""

import importlib.metadata
import json
import multiprocessing
import os
import platform
import queue
import signal
import statistics
import sys
import threading
import time
from concurrent.futures import CancelledError, ProcessPoolExecutor

import process_jobs as jobs

CHUNK = 64
LIMIT = 0.05
LONG = 60


class Standard:
    def __init__(self, workers):
        self.pool = ProcessPoolExecutor(workers)

    def submit(self, function, *arguments):
        return self.pool.submit(function, *arguments)

    def map(self, count):
        return self.pool.map(jobs.identity, range(count), chunksize=CHUNK)

    def cancel(self):
        return None, None  # not of a running job

    def overshoot(self):
        return None

    def crash(self):
        return None  # the pool is broken afterwards

    def end(self):
        self.pool.shutdown()


class Loky(Standard):
    def __init__(self, workers):
        import loky

        self.workers = workers
        self.pool = loky.ProcessPoolExecutor(workers)

    def crash(self):
        start = time.perf_counter_ns()
        crashed = self.pool.submit(jobs.crash)
        assert crashed.exception() is not None
        # Its users get a new pool in this way; the old one is broken.
        self.__init__(self.workers)
        self.pool.submit(jobs.empty).result()
        return time.perf_counter_ns() - start


class Pebble:
    def __init__(self, workers):
        import pebble

        self.pool = pebble.ProcessPool(max_workers=workers)

    def submit(self, function, *arguments):
        return self.pool.schedule(function, args=arguments)

    def map(self, count):
        return self.pool.map(jobs.identity, range(count), chunksize=CHUNK).result()

    def cancel(self):
        running = self.submit(jobs.sleep, LONG)
        while not running.running():
            time.sleep(0.001)
        time.sleep(0.005)
        start = time.perf_counter_ns()
        running.cancel()
        try:
            running.result()
        except CancelledError:
            pass
        cancelled = time.perf_counter_ns()
        self.submit(jobs.empty).result()
        return cancelled - start, time.perf_counter_ns() - start

    def overshoot(self):
        start = time.perf_counter_ns()
        limited = self.pool.schedule(jobs.sleep, args=(LONG,), timeout=LIMIT)
        assert isinstance(limited.exception(), TimeoutError)
        took = time.perf_counter_ns() - start - LIMIT * 1e9
        self.submit(jobs.empty).result()
        return took

    def crash(self):
        start = time.perf_counter_ns()
        crashed = self.submit(jobs.crash)
        following = self.submit(jobs.empty)
        assert crashed.exception() is not None
        following.result()
        return time.perf_counter_ns() - start

    def end(self):
        self.pool.stop()
        self.pool.join()


POOLS = {"ProcessPoolExecutor": Standard, "loky": Loky, "pebble": Pebble}


def trip(pool, count):
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        pool.submit(jobs.empty).result()
        times.append(time.perf_counter_ns() - start)
    times.sort()
    return [times[len(times) // 2], times[len(times) * 99 // 100]]


def burst(pool, count):
    start = time.perf_counter_ns()
    futures = [pool.submit(jobs.identity, number) for number in range(count)]
    total = sum(future.result() for future in futures)
    elapsed = time.perf_counter_ns() - start
    assert total == count * (count - 1) // 2
    return [elapsed / count]


def map_chunks(pool, count):
    start = time.perf_counter_ns()
    total = sum(pool.map(count))
    elapsed = time.perf_counter_ns() - start
    assert total == count * (count - 1) // 2
    return [elapsed / count]


def there_and_back(pool, count):
    data = os.urandom(1 << 20) * (count >> 20)
    start = time.perf_counter_ns()
    back = pool.submit(jobs.echo, data).result()
    elapsed = time.perf_counter_ns() - start
    assert back == data
    return [elapsed / (2 * len(data))]


def ends(pool, count):
    def median(values):
        values = list(values)
        return None if None in values else statistics.median(values)

    cancels = [pool.cancel() for _ in range(count)]
    return [
        median(first for first, _ in cancels),
        median(second for _, second in cancels),
        median(pool.overshoot() for _ in range(count)),
        median(pool.crash() for _ in range(count)),
    ]


def cold(make, count):
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        pool = make(1)
        pool.submit(jobs.empty).result()
        times.append(time.perf_counter_ns() - start)
        pool.end()
    return [statistics.median(times)]


# Each workload, its number of workers and how much of it warms up.
WORKLOADS = {
    "trip": (trip, 1, 100),
    "burst": (burst, 2, 100),
    "map": (map_chunks, 2, 1_000),
    "bytes": (there_and_back, 1, 1 << 20),
    "end": (ends, 1, 0),
}


def probe(name):
    versions = f"CPython {platform.python_version()}"
    if name == "ProcessPoolExecutor":
        return f"{versions}, start method {multiprocessing.get_start_method()}"
    __import__(name)
    return f"{name} {importlib.metadata.version(name)} on {versions}"


def pin_apart(pool, caller, worker):
    pool.submit(jobs.pin, worker).result()
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {caller})


def read_lines(lines):
    # Not through `sys.stdin`: a forked worker closes that, and would wait for its lock.
    while os.read(0, 1):
        lines.put(True)
    lines.put(None)
    # The main thread ends the pool, unless it hangs.
    time.sleep(5)
    os.killpg(0, signal.SIGKILL)


def main():
    name, workload, *rest = sys.argv[1:]
    if workload == "probe":
        print(probe(name))
        return
    count, *processors = map(int, rest)
    if workload == "cold":
        pool, measure = None, lambda: cold(POOLS[name], count)
    else:
        function, workers, warm_up = WORKLOADS[workload]
        pool = POOLS[name](workers)
        for started in [pool.submit(jobs.sleep, 0.05) for _ in range(workers)]:
            started.result()
        if warm_up:
            function(pool, warm_up)
        if processors:
            pin_apart(pool, *processors)
        measure = lambda: function(pool, count)
    # This thread starts last, because some pools fork.
    lines = queue.SimpleQueue()
    threading.Thread(target=read_lines, args=(lines,), daemon=True).start()
    while lines.get() is not None:
        print(json.dumps(measure()), flush=True)
    if pool is not None:
        pool.end()


if __name__ == "__main__":
    main()
