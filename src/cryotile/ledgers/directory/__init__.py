"""The ledger in a directory that all workers see."""
