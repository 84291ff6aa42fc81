"""Contract suites that ship with cryotile, for the plug-ins of third parties as for its own."""
