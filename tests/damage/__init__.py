"""Files of runs and point DBs are damaged, one at a time."""
