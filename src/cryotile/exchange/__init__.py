"""Layouts of maps of elevation change that others publish: read them, compare with them, write them."""
