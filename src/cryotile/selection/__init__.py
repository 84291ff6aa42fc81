"""Expressions that select points: their parser and their logic."""
