#!/bin/sh
# Starts a test of the test binary as a worker process: the program of some pools in the tests.
exec "$FUTUREPOOL_TEST_BINARY" --exact "$FUTUREPOOL_TEST_WORKER" --nocapture
