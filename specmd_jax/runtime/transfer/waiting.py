"""Sleeping until a moment, not until some time after it."""

import time

AWAKE_S = 2e-4  # at the end: a thread takes about a tenth of a millisecond to wake


def sleep(seconds: float) -> None:
    """Sleeps for so long and hardly longer, which `time.sleep` does not promise.

    Other threads may run meanwhile.
    """
    end = time.perf_counter() + seconds
    if seconds > AWAKE_S:
        time.sleep(seconds - AWAKE_S)
    while time.perf_counter() < end:
        time.sleep(0)
