"""What the command line does, as calls."""
