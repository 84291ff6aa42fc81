"""Real services that tests start."""
