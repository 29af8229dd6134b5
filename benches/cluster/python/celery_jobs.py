"""The tasks of Celery, and its settings. Its workers import this module, and so does the caller."""

import os
import time

from celery import Celery

late = bool(os.environ["CELERY_PEER_LATE"])
address = os.environ["CELERY_PEER_REDIS"]

app = Celery("celery_jobs", broker=address, backend=address)
app.conf.worker_prefetch_multiplier = 64
app.conf.task_acks_late = late
# Without this, a late task whose process was killed is acknowledged as failed.
app.conf.task_reject_on_worker_lost = late


@app.task
def empty():
    pass


@app.task
def identity(number):
    return number


@app.task
def sleep(seconds):
    time.sleep(seconds)
