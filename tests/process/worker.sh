#!/bin/sh
# Starts a test of the test binary as a worker process: the program of some pools in the tests.
if [ -n "$FUTUREPOOL_TEST_STARTS" ]; then
    echo "$$" >> "$FUTUREPOOL_TEST_STARTS"
    if [ "$(wc -l < "$FUTUREPOOL_TEST_STARTS")" -gt "${FUTUREPOOL_TEST_GOOD_STARTS:-1000000}" ]; then
        exit 7
    fi
fi
exec "$FUTUREPOOL_TEST_BINARY" --exact "$FUTUREPOOL_TEST_WORKER" --nocapture
