"""The kernels' sources; see README.md beside this."""
