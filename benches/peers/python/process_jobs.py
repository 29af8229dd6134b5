"""The jobs of process_pools.py: a module of their own, so that workers can import them."""

import os
import time


def empty():
    pass


def identity(number):
    return number


def echo(data):
    return data


def crash():
    os.abort()


def sleep(seconds):
    time.sleep(seconds)


def pin(processor):
    os.sched_setaffinity(0, {processor})
