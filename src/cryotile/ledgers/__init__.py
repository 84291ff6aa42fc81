"""The durable list of a run's tasks, from which workers on any host take leases.

Third parties prove a ledger of their own with :class:`cryotile.testing.ledgers.LedgerContract`.
"""

from __future__ import annotations

from cryotile.ledgers.base import LEASE, Exchange, Fits, Lease, Ledger, Selective

__all__ = ["LEASE", "Exchange", "Fits", "Lease", "Ledger", "Selective"]
