"""Totals over regions: volume and mass from a map of rates, with the sigma of deleting a pass everywhere."""
