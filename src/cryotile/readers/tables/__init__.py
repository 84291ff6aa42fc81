"""Tables of points (CSV, Parquet, HDF5, NetCDF), read by a mapping of their columns."""
