"""Runs and ingests: frozen lists of tasks in a directory, where points and farms meet."""
