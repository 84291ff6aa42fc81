"""What backends, ledgers and the task-farm server share."""
