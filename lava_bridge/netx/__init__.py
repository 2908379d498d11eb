"""Runs ``.net`` files with integers, bit for bit as Lava's ``fixed_pt`` models do.

>>> net = lava_bridge.netx.Network("net.net")
>>> print(net)
>>> spikes = net.run(x)

As ``lava.lib.dl.netx``, but that a net's ``run`` takes an array and gives one: no processes, ports
or buffers.
"""

from .layer import Layer
from .network import LayerRun, NetRun, Network

__all__ = ["Layer", "LayerRun", "NetRun", "Network"]
