"""Fitted tiles, the mosaic of all tiles, and the product file."""
