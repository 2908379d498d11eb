"""The processes' convolution, and its sparse matrix, against those of lava-nc."""

from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np

from lava_bridge.proc.conv import utils

from ..conftest import import_lava_conv
from .measure import LAVA_NC, Case, Run, Sizes

__all__ = ["processes"]

CONV, SPARSE = "conv", "conv_to_sparse"
KERNEL = ((3, 3), (1, 1), (1, 1), (1, 1), 1)


def processes(lava: ModuleType, sizes: Sizes) -> Iterator[Case]:
    """The cases; lava-nc's own ``conv`` is its ``conv_scipy``. (lava-dl is not in them.)"""
    theirs = import_lava_conv()
    width, channels, filters = sizes.layer
    rng = np.random.default_rng(0)
    spikes = rng.random((width, width, channels)) < 0.2
    weight = rng.integers(-128, 128, (filters, 3, 3, channels)).astype(np.int32)
    floats = rng.standard_normal(spikes.shape), rng.standard_normal(weight.shape)
    name = f"{width}x{width}x{channels} to {width}x{width}x{filters}, 3x3"

    def run(function: Callable[..., np.ndarray], image: np.ndarray, kernel: np.ndarray) -> Run:
        return lambda: function(image, kernel, *KERNEL)

    for kind, arrays in (("8 bits, spikes", (spikes, weight)), ("floats", floats)):
        sides = {
            CONV: run(utils.conv, *arrays),
            LAVA_NC: run(theirs.conv_scipy, *arrays),
        }
        yield Case("Conv process", f"{name}, {kind}", sides, {LAVA_NC: 20})

    shapes = (width, width, channels), (width, width, filters)
    sparse = {
        SPARSE: lambda: utils.conv_to_sparse(*shapes, weight, *KERNEL[1:]),
        LAVA_NC: lambda: theirs.conv_to_sparse(*shapes, weight, *KERNEL[1:]),
    }
    yield Case("Sparse matrix", name, sparse, {LAVA_NC: 10})
