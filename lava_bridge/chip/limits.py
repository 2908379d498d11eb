"""The published limits of Loihi and Loihi 2, each with its source.

What is not published (Loihi 2's axons, bytes of a neuron's states) is no limit here.
"""

from dataclasses import dataclass

from ..slayer.block.common import MAX_DELAY

__all__ = ["CHIPS", "LOIHI1", "LOIHI2", "Chip"]

KILOBYTE = 8 * 1024  # in bits


@dataclass(frozen=True)
class Chip:
    """The published limits of a chip. None: no limit is published.

    Attributes:
        name: What the command line calls it.
        cores: Neuromorphic cores on a chip.
        neurons_per_core: Neurons (compartments) that a core holds.
        core_memory: Bits of a core's memory for synapses; where that is shared with the neurons'
            states, of all of it.
        synapses: Weights that a chip stores.
        input_axons, output_axons: Lists of synapses that spikes find in a core; places to which a
            core sends spikes.
        weight_bits: Of a synaptic weight, with its sign.
        max_delay: Steps by which spikes are delayed.
        threshold_bits, bias_bits: Of a threshold's and of a bias's mantissa.
        state_bits: Of a current or a voltage, with its sign.
        neurons: The types of neurons; None: programmable.
        graded_spikes: Whether a spike carries a value.
        own_convolutions: Whether the chip has synapses of its own for convolutions. Else kernels
            are shared by population axons alone, which not every tool makes use of.
    """

    name: str
    cores: int
    neurons_per_core: int
    core_memory: int
    synapses: int
    input_axons: int | None
    output_axons: int | None
    weight_bits: int
    max_delay: int
    threshold_bits: int
    bias_bits: int
    state_bits: int
    neurons: tuple[str, ...] | None
    graded_spikes: bool
    own_convolutions: bool


# Sources. NengoLoihi's and lava-nc's figures were read in their code; Davies's and the brief's are
# cited at second hand, not checked in the originals.
# Davies: M. Davies et al., "Loihi: A Neuromorphic Manycore Processor with On-Chip Learning", IEEE
# Micro 38(1), 2018. Brief: Intel Labs, "Taking Neuromorphic Computing to the Next Level with Loihi
# 2", technology brief, 2021, its table of both chips' features. NengoLoihi: nengo_loihi/block.py.
# lava-nc: its bit-accurate models, lava/proc/{lif,dense}/models.py, 0.10.0.
LOIHI1 = Chip(
    name="loihi1",
    cores=128,  # Davies
    neurons_per_core=1024,  # Davies; NengoLoihi, MAX_COMPARTMENTS
    core_memory=128 * KILOBYTE,  # Davies; NengoLoihi, MAX_SYNAPSE_BITS
    synapses=130_000_000,  # Intel's announcement of Loihi, 25 September 2017
    input_axons=4096,  # Davies; NengoLoihi, MAX_IN_AXONS
    output_axons=4096,  # Davies; NengoLoihi, MAX_OUT_AXONS
    weight_bits=9,  # Davies: one to nine bits
    max_delay=MAX_DELAY,  # lava-dl 0.6.0, the delay of slayer's blocks
    threshold_bits=17,  # lava-nc, LIF's vth
    bias_bits=13,  # lava-nc, LIF's bias_mant
    state_bits=24,  # lava-nc, LIF's u and v
    # Brief: digital leaky integrate-and-fire; Davies lists the adaptation of thresholds.
    neurons=("CUBA", "ALIF"),
    graded_spikes=False,  # Brief: binary spike events
    own_convolutions=False,  # Davies: population-based connectivity
)
LOIHI2 = Chip(
    name="loihi2",
    cores=128,  # Brief
    neurons_per_core=8192,  # Brief
    core_memory=192 * KILOBYTE,  # Brief: 192 KB a core, for states and synapses as they need it
    synapses=120_000_000,  # Brief
    input_axons=None,
    output_axons=None,
    weight_bits=8,  # lava-nc, Dense's weights
    max_delay=MAX_DELAY,  # lava-dl 0.6.0, as above; lava-nc's DelayDense has 6 bits
    threshold_bits=17,  # lava-nc, LIF's vth
    bias_bits=13,  # lava-nc, LIF's bias_mant
    state_bits=24,  # lava-nc, LIF's u and v
    neurons=None,  # Brief; G. Orchard et al., arXiv 2111.03746, abstract: programmable
    graded_spikes=True,  # Brief: of up to 32 bits
    own_convolutions=True,  # Brief: shared synapses for convolution
)
CHIPS = {chip.name: chip for chip in (LOIHI1, LOIHI2)}
