"""Check that errors are one line."""

from __future__ import annotations

from typing import Any

import pytest


def one_line(error: pytest.ExceptionInfo[Any]) -> str:
    """Check that the message of an error is one line, and return it."""
    message = str(error.value)
    assert "\n" not in message
    return message


def only_line(text: str) -> str:
    """Check that the command line complained in one line, and return it."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0].removeprefix("cryotile: ")
