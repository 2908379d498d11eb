"""What neurons and blocks of the other families can't do is one BridgeError of one line."""

import math

import pytest
import torch
import torch.nn.functional as F

from lava_bridge import slayer
from lava_bridge.errors import BridgeError

from .files import exported
from .strategies import ADAPTIVE, FIRING, RESONATORS, SPIKING, blocks_neuron

X = torch.zeros(2, 3, 4)
PIXELS = torch.zeros(2, 3, 1, 1, 4)


def neuron(family, **changes):
    return getattr(slayer.neuron, family).Neuron(**{**FIRING[family], **changes})


def after(module, first):
    """The module, after it has seen ``first``."""
    module(first)
    return module


def block(family, name, *arguments, **options):
    params = blocks_neuron(slayer, family=family)
    return getattr(getattr(slayer.block, family), name)(params, *arguments, **options)


def with_bias(bias, shape=None, first=None):
    """A sigma-delta neuron with this bias, run on an input of this shape before or after."""
    made = neuron("sigma_delta")
    if first is not None:
        made(torch.zeros(first))
    made.set_bias(bias)
    return made(torch.zeros(shape)) if shape is not None else made


# What is done, and the words of what it found and what it expected.
CASES_OF_ERROR = {
    "a sigma-delta bias of another shape": (
        lambda: with_bias(torch.zeros(5), first=(2, 3, 4)),
        ["bias", "(3,)", "(5,)"],
    ),
    "a sigma-delta bias of another shape set first": (
        lambda: with_bias(torch.zeros(5), (2, 3, 4)),
        ["bias", "(3,)", "(5,)"],
    ),
    "a sigma-delta bias of channels for pixels": (
        lambda: with_bias(torch.zeros(3), (2, 3, 2, 3, 4)),
        ["bias", "(3, 2, 3)", "(3,)"],
    ),
    "a sigma-delta bias that is a number": (
        lambda: with_bias(1.0),
        ["bias", "1.0"],
    ),
    "a sigma-delta threshold of -1": (
        lambda: neuron("sigma_delta", threshold=-1),
        ["threshold", "-1"],
    ),
    "a sigma-delta threshold of NaN": (
        lambda: neuron("sigma_delta", threshold=math.nan),
        ["threshold", "nan"],
    ),
    "a sigma-delta threshold set to -1": (
        lambda: setattr(neuron("sigma_delta"), "threshold", -1),
        ["threshold", "-1"],
    ),
    "a sigma-delta neuron given pixels after a row": (
        lambda: after(neuron("sigma_delta"), X)(PIXELS),
        ["(3,)", "(3, 1, 1)"],
    ),
    "a sigma-delta neuron given pixels after a row with a threshold per channel": (
        lambda: after(neuron("sigma_delta", shared_param=False), X)(PIXELS),
        ["(3,)", "(3, 1, 1)"],
    ),
    "a delta of threshold NaN": (
        lambda: slayer.axon.Delta(math.nan),
        ["threshold", "nan"],
    ),
    "a delta given a row after pixels": (
        lambda: after(slayer.axon.Delta(0.1), PIXELS)(X),
        ["(3, 1, 1)", "(3,)"],
    ),
    "a sigma given other channels": (
        lambda: after(slayer.dendrite.Sigma(), X)(torch.zeros(2, 5, 4)),
        ["(3,)", "(5,)"],
    ),
    "a sigma given no time": (
        lambda: slayer.dendrite.Sigma()(torch.zeros(2, 3)),
        ["[N, C, *, T]", "(2, 3)"],
    ),
    "a delta given a pair": (
        lambda: slayer.axon.Delta(0.1)((X, X)),
        ["[N, C, *, T]", "tuple of 2"],
    ),
    "a complex input block given a list of three": (
        lambda: block("rf", "Input")([X, X, X]),
        ["pair", "3"],
    ),
    "a complex input block given a tuple of three": (
        lambda: block("rf", "Input")((X, X, X)),
        ["pair", "3"],
    ),
    "a complex input block given two shapes": (
        lambda: block("adrf", "Input")((X, X[:1])),
        ["(2, 3, 4)", "(1, 3, 4)"],
    ),
    "a real input block given a pair": (
        lambda: block("alif", "Input")((X, X)),
        ["[N, C, *, T]", "tuple of 2"],
    ),
    "a sigma-delta input block given a pair": (
        lambda: block("sigma_delta", "Input")((X, X)),
        ["[N, C, *, T]", "tuple of 2"],
    ),
    "a dense block given a pair": (
        lambda: block("rf", "Dense", 3, 2)((X, X)),
        ["tensor", "tuple"],
    ),
    "a complex convolution given a row": (
        lambda: block("rf", "Conv", 3, 2, 1)(X),
        ["Conv", "[N, C, H, W, T]", "(2, 3, 4)"],
    ),
    "a complex dense block given other channels": (
        lambda: block("rf_iz", "Dense", 3, 2)(torch.zeros(2, 4, 5)),
        ["3 channels", "(2, 4, 5)"],
    ),
    "a complex block given integers": (
        lambda: block("adrf_iz", "Dense", 3, 2)(torch.zeros(2, 3, 5, dtype=torch.int32)),
        ["floating", "int32"],
    ),
    "an export of a complex block without a shape": (
        lambda: exported(block("rf", "Conv", 3, 2, 1)),
        ["Conv", "shape", "infer_shape"],
    ),
    "an export of a complex block without a quantiser": (
        lambda: exported(block("rf", "Dense", 3, 2, pre_hook_fx=None)),
        ["pre_hook_fx", "quantize_8bit"],
    ),
    "a complex spike without a surrogate": (
        lambda: (
            neuron("rf", threshold=0)((torch.ones(1, 1, 1, requires_grad=True),) * 2)
            .sum()
            .backward()
        ),
        ["tau_rho = 0", "1 / scale"],
    ),
    "an infer_shape of a row for a complex pool": (
        lambda: block("rf", "Pool", 2).infer_shape((3,)),
        ["Pool", "(3,)"],
    ),
    "channels whose period may be infinite": (
        lambda: neuron("rf", period=(4, math.inf), shared_param=False),
        ["period", "inf"],
    ),
    "a scale of 0": (lambda: neuron("rf", scale=0), ["scale", "0"]),
}

for _family in RESONATORS:
    CASES_OF_ERROR.update(
        {
            f"{_family} given a real input": (
                lambda family=_family: neuron(family)(X),
                ["pair (real, imag)", "(2, 3, 4)"],
            ),
            f"{_family} given a real input of batch two": (
                lambda family=_family: neuron(family)(torch.zeros(2, 3, 4, 5)),
                ["pair (real, imag)", "(2, 3, 4, 5)"],
            ),
            f"{_family} given a triple": (
                lambda family=_family: neuron(family)((X, X, X)),
                ["pair (real, imag)", "tuple of 3"],
            ),
            f"{_family} given two shapes": (
                lambda family=_family: neuron(family)((X, X[:, :2])),
                ["(2, 3, 4)", "(2, 2, 4)"],
            ),
            f"{_family} given a pair without time": (
                lambda family=_family: neuron(family)((X[0], X[0])),
                ["[N, C, *, T]", "(3, 4)"],
            ),
            f"{_family} given a pair of integers": (
                lambda family=_family: neuron(family)((X.int(), X.int())),
                ["floating", "int32"],
            ),
            f"{_family} given an imaginary part of integers": (
                lambda family=_family: neuron(family)((X, X.long())),
                ["floating", "int64"],
            ),
            f"{_family} given another shape": (
                lambda family=_family: after(neuron(family), (X, X))((X[:, :2], X[:, :2])),
                ["(3,)", "(2,)"],
            ),
            f"{_family} given pixels after a row": (
                lambda family=_family: after(neuron(family), (X, X))((PIXELS, PIXELS)),
                ["(3,)", "(3, 1, 1)"],
            ),
            f"{_family} of period 3.9": (
                lambda family=_family: neuron(family, period=3.9),
                ["period", "4", "3.9"],
            ),
            f"{_family} of periods from 3": (
                lambda family=_family: neuron(family, period=(3, 8), shared_param=False),
                ["period", "4", "(3, 8)"],
            ),
            f"{_family} of period NaN": (
                lambda family=_family: neuron(family, period=math.nan),
                ["period", "nan"],
            ),
            f"{_family} with a shared pair of periods": (
                lambda family=_family: neuron(family, period=(4, 8)),
                ["period", "shared_param", "(4, 8)"],
            ),
            f"{_family} with three periods": (
                lambda family=_family: neuron(family, period=(4, 8, 9), shared_param=False),
                ["period", "(min, max)", "(4, 8, 9)"],
            ),
            f"{_family} of decay 1.1": (
                lambda family=_family: neuron(family, decay=1.1),
                ["decay", "0 ... 1", "1.1"],
            ),
            f"{_family} of decays from -0.1": (
                lambda family=_family: neuron(family, decay=(-0.1, 0.2), shared_param=False),
                ["decay", "0 ... 1", "(-0.1, 0.2)"],
            ),
        }
    )

for _family in ("alif", "sigma_delta"):
    CASES_OF_ERROR.update(
        {
            f"{_family} given a pair": (
                lambda family=_family: neuron(family)((X, X)),
                ["[N, C, *, T]", "tuple of 2"],
            ),
            f"{_family} given no time": (
                lambda family=_family: neuron(family)(X[0]),
                ["[N, C, *, T]", "(3, 4)"],
            ),
            f"{_family} given integers": (
                lambda family=_family: neuron(family)(X.int()),
                ["floating", "int32"],
            ),
            f"{_family} given another shape": (
                lambda family=_family: after(neuron(family), X)(X[:, :2]),
                ["(3,)", "(2,)"],
            ),
        }
    )

for _family in ADAPTIVE:
    for _name in ("threshold_decay", "refractory_decay"):
        CASES_OF_ERROR.update(
            {
                f"{_family} of {_name} 1.5": (
                    lambda family=_family, name=_name: neuron(family, **{name: 1.5}),
                    [_name, "0 ... 1", "1.5"],
                ),
                f"{_family} of {_name} NaN": (
                    lambda family=_family, name=_name: neuron(family, **{name: math.nan}),
                    [_name, "0 ... 1", "nan"],
                ),
                f"{_family} with a shared pair of {_name}": (
                    lambda family=_family, name=_name: neuron(family, **{name: (0.1, 0.2)}),
                    [_name, "shared_param", "(0.1, 0.2)"],
                ),
            }
        )
    for _step in (math.nan, math.inf):
        CASES_OF_ERROR[f"{_family} of a step of {_step}"] = (
            lambda family=_family, step=_step: neuron(family, threshold_step=step),
            ["threshold_step", str(_step)],
        )

for _family in SPIKING:
    for _threshold in (-0.5, math.nan, math.inf):
        CASES_OF_ERROR[f"{_family} of threshold {_threshold}"] = (
            lambda family=_family, value=_threshold: neuron(family, threshold=value),
            ["threshold", str(_threshold)],
        )


@pytest.mark.parametrize("case", CASES_OF_ERROR)
def test_it_is_one_line_that_names_what_was_found_and_expected(case):
    do, words = CASES_OF_ERROR[case]
    with pytest.raises(BridgeError) as caught:
        do()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("family", RESONATORS)
def test_a_pair_may_be_a_list(family):
    x = torch.randn(2, 3, 9), torch.randn(2, 3, 9)
    assert torch.equal(neuron(family)(list(x)), neuron(family)(x))
    assert torch.equal(block(family, "Input")(list(x)), block(family, "Input")(x))


def test_no_value_of_a_signal_of_zeros_is_sent():
    assert not neuron("sigma_delta", activation=F.relu)(X).any()
