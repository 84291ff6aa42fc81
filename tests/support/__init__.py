"""Helpers that tests share."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout: its documentation, scripts and sources."""
