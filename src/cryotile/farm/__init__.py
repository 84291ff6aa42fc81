"""Code that backends, ledgers and the task-farm server share."""
