"""The fit: from points around posts to rates with their uncertainty."""
