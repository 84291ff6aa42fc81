"""The documentation: its commands run, its links lead somewhere, and its lists are complete."""
