"""What processes know of each other."""

from __future__ import annotations

import signal
import subprocess
import sys
from itertools import islice

from cryotile.processes import backoff


def test_pauses_between_tries_double_up_to_the_longest_and_are_random():
    pauses = list(islice(backoff(0.1, 0.7), 6))
    for pause, limit in zip(pauses, (0.1, 0.2, 0.4, 0.7, 0.7, 0.7), strict=True):
        assert limit / 2 <= pause <= limit
    assert pauses != list(islice(backoff(0.1, 0.7), 6))


def test_processes_that_tests_start_can_be_interrupted_whatever_the_shell_ignored():
    ask = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert said.stdout == "True\n"
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
