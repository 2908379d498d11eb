"""The twelve blocks as test cases: how to build each in either framework, and what to feed it."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import assume, strategies as st
from torch import Tensor

from lava_bridge import slayer

from .strategies import GEOMETRY, NORMS, blocks_neuron, spikes, with_forward

FEED_FORWARD = ("Dense", "Conv", "ConvT", "Pool", "Unpool")


@dataclass(frozen=True)
class Case:
    """A block: its class, its arguments, those of its neuron, and the shape of its input."""

    block: str
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    neuron: dict[str, Any] | None = field(default_factory=dict)
    family: str = "cuba"

    def build(self, which: Any) -> Any:
        """The block in the framework ``which``."""
        maker = getattr(getattr(which.block, self.family), self.block)
        if self.neuron is None:
            return maker(**self.options)
        params = blocks_neuron(which, family=self.family, **self.neuron)
        return running(maker(neuron_params=params, **self.options))

    def built_and_run(self, which: Any, seed: int, x: Tensor) -> tuple[Any, Tensor]:
        """The block and its first output: all that is drawn, from one seed."""
        torch.manual_seed(seed)
        block = self.build(which)
        return block, block(x)

    def input(self, seed: int, batch: int = 2, time: int = 8) -> Tensor:
        """Spikes for this block, ``[N, *shape, T]``."""
        return spikes((batch, *self.shape, time), seed)

    def of_neuron(self, **changes: Any) -> "Case":
        """This case with other arguments of its neuron. (Cases are shared: none may be changed.)"""
        return replace(self, neuron={**(self.neuron or {}), **changes})

    def but(self, **changes: Any) -> "Case":
        """This case with other options."""
        return replace(self, options={**self.options, **changes})


def running(block: Any) -> Any:
    """The block; lava's with what its complex synapses and adrf_iz lack to run and be exported."""
    if block.neuron is not None:
        with_forward(block.neuron)
    synapse = getattr(block, "synapse", None)
    if type(synapse).__module__ == "lava.lib.dl.slayer.synapse.complex":
        for name in (*GEOMETRY, "weight_norm_enabled"):
            setattr(synapse, name, getattr(synapse.real, name))
    return block


def trained_pair(case: Case, lava: Any, seed: int) -> tuple[Any, Any]:
    """The block of ``case`` in both frameworks, alike, after two batches of training.

    They differ in size: in a second batch of one size lava's blocks forget what they fed back.
    """
    ours, _ = case.built_and_run(slayer, seed, case.input(seed))
    with torch.no_grad():
        theirs, _ = case.built_and_run(lava, seed, case.input(seed))
        for block in (ours, theirs):
            torch.manual_seed(seed + 1)
            block(case.input(seed + 1, batch=3))
    return ours, theirs


# One of each block, with everything that its file and its state can hold.
_WINDOW = {"kernel_size": 2, "weight_scale": 3}
_PER_CHANNEL = {"shared_param": False, "current_decay": (0.1, 0.5), "voltage_decay": (0.0, 0.3)}
_TRAINED = {"norm": "WgtScaleBatchNorm"}
CASES = {
    "Input": Case("Input", (2, 3, 4), {"weight": 1.3, "bias": -0.2}),
    "Input without neuron": Case("Input", (3,), {"delay_shift": False}, None),
    "Flatten": Case("Flatten", (2, 3, 4), {}, None),
    "Average": Case("Average", (12,), {"num_outputs": 4}, None),
    "TimeDecimation": Case("TimeDecimation", (3,), {"factor": 4}, None),
    "Affine": Case("Affine", (6,), {"in_neurons": 6, "out_neurons": 3}),
    "Affine without dynamics": Case(
        "Affine", (6,), {"in_neurons": 6, "out_neurons": 3, "dynamics": False}
    ),
    "Dense": Case("Dense", (6,), {"in_neurons": 6, "out_neurons": 4, "weight_scale": 2}),
    "Dense per channel with norm, weight norm and delay": Case(
        "Dense",
        (6,),
        {"in_neurons": 6, "out_neurons": 4, "delay": True, "weight_norm": True},
        {**_TRAINED, **_PER_CHANNEL},
    ),
    "Conv": Case("Conv", (2, 5, 6), {"in_features": 2, "out_features": 3, **_WINDOW}),
    "Conv with norm, weight norm and delay": Case(
        "Conv",
        (4, 5, 6),
        {
            "in_features": 4,
            "out_features": 2,
            "kernel_size": (3, 2),
            "stride": (1, 2),
            "padding": (2, 1),
            "dilation": (2, 1),
            "groups": 2,
            "weight_scale": 4,
            "weight_norm": True,
            "delay": True,
        },
        {"norm": "MeanOnlyBatchNorm"},
    ),
    "ConvT with norm": Case(
        "ConvT",
        (3, 3, 4),
        {"in_features": 3, "out_features": 2, "stride": 2, "padding": 1, **_WINDOW},
        _TRAINED,
    ),
    "ConvT with weight norm": Case(
        "ConvT", (3, 3, 4), {"in_features": 3, "out_features": 2, "weight_norm": True, **_WINDOW}
    ),
    "Pool with delay": Case("Pool", (2, 4, 6), {"kernel_size": 2, "delay": True}),
    "Unpool with delay": Case("Unpool", (2, 4, 6), {"kernel_size": (1, 2), "delay": True}),
    "KWTA": Case(
        "KWTA", (6,), {"in_neurons": 6, "out_neurons": 4, "num_winners": 2, "weight_scale": 4}
    ),
    "Recurrent": Case("Recurrent", (6,), {"in_neurons": 6, "out_neurons": 4, "weight_scale": 3}),
    "Recurrent with norm and delay": Case(
        "Recurrent",
        (6,),
        {"in_neurons": 6, "out_neurons": 4, "weight_scale": 3, "delay": True},
        _TRAINED,
    ),
    "Recurrent per channel": Case(
        "Recurrent", (6,), {"in_neurons": 6, "out_neurons": 4, "weight_scale": 3}, _PER_CHANNEL
    ),
}


@st.composite
def feed_forward(draw: Any, names: tuple[str, ...] = FEED_FORWARD, dropout: bool = True) -> Case:
    """A feed-forward block with any of its options, and a neuron with any of its own."""
    name = draw(st.sampled_from(names))
    options: dict[str, Any] = {
        "weight_scale": draw(st.sampled_from([1, 2, 4.5])),
        "delay": draw(st.booleans()),
        "delay_shift": draw(st.booleans()),
        # lava learns a pool's weight once it has weight norm; here it stays fixed
        "weight_norm": name not in ("Pool", "Unpool") and draw(st.booleans()),
    }
    neuron: dict[str, Any] = {
        "threshold": draw(st.sampled_from([0.25, 0.34, 0.71, 1.5])),
        "current_decay": draw(st.sampled_from([0, 0.3, 1])),
        "voltage_decay": draw(st.sampled_from([0, 0.1, 1])),
        "norm": draw(st.sampled_from([None, *NORMS])),
        "dropout": draw(st.sampled_from([None, 0.3])) if dropout else None,
        "graded_spike": draw(st.booleans()),
        "requires_grad": draw(st.booleans()),
        "tau_grad": 0.01,
    }
    channels = draw(st.integers(1, 3))
    image = draw(st.tuples(st.integers(2, 6), st.integers(2, 6)))
    shape: tuple[int, ...] = (channels, *image)
    if name == "Dense":
        options["out_neurons"] = draw(st.integers(1, 5))
        if draw(st.booleans()):
            shape = (channels * image[0],)
            options["in_neurons"] = shape[0]
            if draw(st.booleans()):
                neuron.update(_PER_CHANNEL)
        else:
            options["in_neurons"] = (*image[::-1], channels)
    elif name in ("Conv", "ConvT"):
        options["in_features"] = channels
        options["out_features"] = draw(st.integers(1, 3))
        options["kernel_size"] = draw(st.sampled_from([1, 2, (1, 2)]))
        options["stride"] = draw(st.sampled_from([1, 2, (2, 1)]))
        options["padding"] = draw(st.sampled_from([0, 0, (1, 0)]))
        assume(name == "Conv" or image[0] > 2)
    else:
        options["kernel_size"] = draw(st.sampled_from([1, 2, (2, 1)]))
    return Case(name, shape, options, neuron)


# The blocks of the other families --------------------------------------------------------------

FAMILIES = ("rf", "rf_iz", "alif", "adrf", "adrf_iz", "sigma_delta")
_ADAPTATION_RANGES = {"threshold_decay": (0.1, 0.5), "refractory_decay": (0.2, 0.4)}
_RESONATOR_RANGES = {"shared_param": False, "period": (5, 20), "decay": (0.05, 0.2)}
RANGES: dict[str, dict[str, Any]] = {
    "rf": _RESONATOR_RANGES,
    "rf_iz": _RESONATOR_RANGES,
    "alif": {**_PER_CHANNEL, **_ADAPTATION_RANGES},
    "adrf": {**_RESONATOR_RANGES, **_ADAPTATION_RANGES},
    "adrf_iz": {**_RESONATOR_RANGES, **_ADAPTATION_RANGES},
    "sigma_delta": {"shared_param": False},
}
_OF_ANY_FAMILY = ("threshold", "norm", "dropout", "requires_grad", "persistent_state", "tau_grad")


def in_family(case: Case, family: str) -> Case:
    """A block of CUBA neurons as one of another family, its neuron as alike as can be."""
    if case.neuron is None:
        return replace(case, family=family)
    neuron = {key: case.neuron[key] for key in _OF_ANY_FAMILY if key in case.neuron}
    if "graded_spike" in case.neuron and family != "sigma_delta":
        neuron["graded_spike"] = case.neuron["graded_spike"]
    if not case.neuron.get("shared_param", True):
        neuron.update(RANGES[family])
    if family == "rf" and "tau_grad" in neuron:
        neuron["tau_grad"] = 1  # its width is 200 times smaller
    return replace(case, family=family, neuron=neuron)


def _family_cases() -> dict[str, Case]:
    cases = {}
    for family in FAMILIES:
        for name, case in CASES.items():
            if case.neuron is None or "without" in name:
                continue
            if family == "sigma_delta" and case.block in ("KWTA", "Recurrent"):
                continue
            if case.block == "Affine" and family not in ("rf", "rf_iz"):
                continue
            cases[f"{family} {name}"] = in_family(case, family)
    output = Case("Output", (6,), {"in_neurons": 6, "out_neurons": 4}, {}, "sigma_delta")
    cases["sigma_delta Output"] = output.but(weight_scale=2)
    cases["sigma_delta Output with weight norm"] = output.but(weight_norm=True)
    return cases


FAMILY_CASES = _family_cases()
