"""What several files of this folder share: one browser, and one server whose page is looked at."""

from __future__ import annotations

from tests.support.services.browser import browser, page
from tests.support.services.watched import visit, watched

__all__ = ["browser", "page", "visit", "watched"]
