"""Projected coordinates: grid and tiles, projections, masks and elevation models."""
