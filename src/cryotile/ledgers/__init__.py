"""The durable list of a run's tasks, from which workers on any host take leases.

Third parties test a ledger of their own with :class:`cryotile.testing.ledgers.LedgerContract`.
"""

from __future__ import annotations

from cryotile.ledgers.base import LEASE, Ending, Fits, Lease, Ledger

__all__ = ["LEASE", "Ending", "Fits", "Lease", "Ledger"]
