"""What a block writes, read back: every dataset of an HDF5 group in memory."""

from typing import Any

import h5py
import numpy as np


def exported(block: Any) -> dict[str, Any]:
    """Every dataset that ``block.export_hdf5`` writes: its path, dtype, shape and value."""
    found: dict[str, Any] = {}
    with h5py.File("block.net", "w", driver="core", backing_store=False) as handle:
        block.export_hdf5(handle.create_group("layer/0"))

        def collect(path: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[path] = (item.dtype, item.shape, item[()])

        handle.visititems(collect)
    return found


def assert_same_file(mine: dict[str, Any], reference: dict[str, Any]) -> None:
    """The same datasets, with the same dtypes, shapes and values."""
    assert mine.keys() == reference.keys()
    for path, (dtype, shape, value) in reference.items():
        my_dtype, my_shape, my_value = mine[path]
        assert my_dtype == dtype, path
        assert my_shape == shape, path
        assert np.array_equal(my_value, value), path
