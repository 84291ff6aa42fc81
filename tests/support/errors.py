"""Messages of errors that tests look at."""

from __future__ import annotations

from typing import Any

import pytest


def one_line(error: pytest.ExceptionInfo[Any]) -> str:
    """Check that the message of an error is one line, and return it."""
    message = str(error.value)
    assert "\n" not in message
    return message
