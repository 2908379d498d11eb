"""slayer, written natively: ``lava_bridge.slayer.X`` is ``lava.lib.dl.slayer.X``.

Tensors are ``[N, C, T]`` or ``[N, C, H, W, T]`` (NXT): batch first, time last.
"""

from . import axon, block, classifier, dendrite, io, jitconfig, loss, neuron, spike, synapse, utils

__all__ = ["axon", "block", "classifier", "dendrite", "io", "jitconfig", "loss"]
__all__ += ["neuron", "spike", "synapse", "utils"]
