"""The durable list of a run's tasks, from which workers on any host take leases.

Third parties prove a ledger of their own with :class:`cryotile.testing.ledgers.LedgerContract`.
"""

from __future__ import annotations

from cryotile.ledgers.base import LEASE, Exchange, Lease, Ledger

__all__ = ["LEASE", "Exchange", "Lease", "Ledger"]
