"""Measures CPython's ThreadPoolExecutor in burst, round trip and as_completed.

Arguments: the number of jobs and the number of workers.
Runs each workload once before it is measured.
Prints the nanoseconds per job of each as a JSON list.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

jobs, workers = int(sys.argv[1]), int(sys.argv[2])
total = jobs * (jobs - 1) // 2


def identity(number):
    return number


def burst(pool):
    futures = [pool.submit(identity, number) for number in range(jobs)]
    return sum(future.result() for future in futures)


def round_trip(pool):
    return sum(pool.submit(identity, number).result() for number in range(jobs))


def completed(pool):
    futures = [pool.submit(identity, number) for number in range(jobs)]
    return sum(future.result() for future in as_completed(futures))


figures = []
with ThreadPoolExecutor(workers) as pool:
    for workload in burst, round_trip, completed:
        workload(pool)  # warms up
        start = time.perf_counter_ns()
        assert workload(pool) == total
        figures.append((time.perf_counter_ns() - start) / jobs)
print(json.dumps(figures))
