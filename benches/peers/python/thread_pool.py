"""CPython's ThreadPoolExecutor: nanoseconds a job of burst, round trip and as_completed, as a JSON list.

Arguments: how many jobs, how many workers.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

jobs, workers = int(sys.argv[1]), int(sys.argv[2])
total = jobs * (jobs - 1) // 2


def same(number):
    return number


def burst(pool):
    futures = [pool.submit(same, number) for number in range(jobs)]
    return sum(future.result() for future in futures)


def round_trip(pool):
    return sum(pool.submit(same, number).result() for number in range(jobs))


def completed(pool):
    futures = [pool.submit(same, number) for number in range(jobs)]
    return sum(future.result() for future in as_completed(futures))


figures = []
with ThreadPoolExecutor(workers) as pool:
    list(pool.map(same, range(100)))  # so that the workers have started
    for workload in burst, round_trip, completed:
        start = time.perf_counter_ns()
        assert workload(pool) == total
        figures.append((time.perf_counter_ns() - start) / jobs)
print(json.dumps(figures))
