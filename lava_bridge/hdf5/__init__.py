"""``.net`` files: slayer blocks as HDF5, in the form that lava-dl 0.6.0 writes and Lava reads.

A file has a group ``layer`` with groups ``0``, ``1``, ...: one for each block, with the block's
``type`` and its integers (weights, thresholds, decays as the chip has them).
"""

from .reader import load_hdf5
from .writer import export_hdf5

__all__ = ["export_hdf5", "load_hdf5"]
