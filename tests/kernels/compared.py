"""The native kernels beside the torch reference: running both, and everywhere they can run."""

from unittest import mock

import torch
from hypothesis import strategies as st
from kernel_cases import INSTRUCTION_SETS, laid_out, numbers, same, shapes_and_orders
from torch import Tensor

from lava_bridge import kernels
from lava_bridge.kernels import native
from lava_bridge.ops import shift

EXTREMES = [0.0, -0.0, 1e-30, 4095.9, 4096.0, 4096.1, -4096.5, 2.0**12, 2.0**19, -(2.0**19)]
EXTREMES += [2.0**40, 1e18, -1e18, 3e38, float("inf"), float("-inf"), float("nan")]

fractions = st.sampled_from([0, 1, 410, 2048, 3600, 4095, 4096])
settings_of_a_run = st.fixed_dictionaries(
    {
        "layout": shapes_and_orders,
        "seed": st.integers(0, 1000),
        "size": st.sampled_from([0.3, 1.0, 30.0, 3000.0, 3e5]),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
        "decays": st.tuples(fractions, fractions, fractions, fractions),
        "kind": st.sampled_from(["shared", "channel", "neuron"]),
        "scale": st.sampled_from([1, 64, 4096, 6400, 100]),
        "threshold": st.sampled_from([0.0, 0.34, 1.0, 17.0]),
        "graded": st.booleans(),
        "first": st.sampled_from([0.0, 0.7, -3.0]),
    }
)


def both(run):
    """What a function gives on the reference and on the native kernels."""
    results = []
    for backend in ("torch", "native"):
        with kernels.use_backend(backend):
            results.append(run())
    return results


def parts_of(run, count=2):
    """Sequences of a run, all in its order of memory."""
    shape, order = run["layout"]
    seeds = range(run["seed"], run["seed"] + count)
    return [laid_out(numbers(shape, s, run["size"], run["dtype"]), order) for s in seeds]


def fractions_of(run, which=slice(None)):
    """Decays of a run: one for all, one for each channel, or one for each neuron."""
    shape, kind = run["layout"][0], run["kind"]
    size = {"shared": (1,), "channel": (shape[1], *[1] * (len(shape) - 3)), "neuron": shape[:-1]}
    found = []
    for k, value in enumerate(run["decays"]):
        drawn = torch.randint(0, 4097, size[kind], generator=torch.Generator().manual_seed(k))
        drawn = drawn.float()
        if drawn.numel():
            drawn.view(-1)[0] = value
        found.append(drawn)
    return found[which]


def states_of(run, count=2):
    """Numbers before the first step: the first for all neurons, the others for each."""
    shape, dtype = run["layout"][0][:-1], run["dtype"]
    found = [torch.full((1,), run["first"], dtype=dtype)]
    for k in range(1, count):
        found.append(numbers(shape, run["seed"] + 10 + k, 1.0, dtype) * run["first"])
    return found


def extremes(dtype, steps=6):
    """Neurons at the ends of what numbers there are, among ordinary ones: two sequences."""
    values = torch.tensor(EXTREMES, dtype=dtype)
    x = values.reshape(1, -1, 1).repeat(1, 1, steps)
    x[..., steps // 2 :] = x[..., steps // 2 :].flip(1)
    ordinary = torch.randn(1, 50, steps, dtype=dtype)
    one = torch.cat([x, ordinary], dim=1)
    return one, torch.cat([x.roll(3, 1), ordinary.flip(-1)], dim=1)


def assert_same(mine, reference):
    for k, (one, other) in enumerate(zip(mine, reference, strict=True)):
        assert same(one, other), k


def assert_close(mine, reference, scales=None):
    """Within 1e-5, in double precision 1e-10, of the largest of each, or of its ``scales``."""
    for k, (one, other, scale) in enumerate(zip(mine, reference, scales or reference, strict=True)):
        bound = 1e-10 if other.dtype == torch.float64 else 1e-5
        # Where one side's exponential became 0, the other's 1e-38 times a state is nothing, too.
        largest = max(1e-6, scale.abs().max().item()) if scale.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=bound, atol=bound * largest, msg=f"{k}")


def gradients_of(outputs, leaves):
    """Gradients for the leaves, of the outputs weighed at random."""
    weights = [numbers(y.shape, k, 1.0, y.dtype) for k, y in enumerate(outputs)]
    return [y.detach() for y in outputs], torch.autograd.grad(outputs, leaves, weights)


def assert_delay_is_the_shift(fired, leaves):
    """``delay_shift`` is a shift by a step after the neuron, to the bit: also for the gradients.

    ``fired(delay_shift)`` gives spikes, then states.
    """

    def outcome(delay_shift):
        spike, *states = fired(delay_shift)
        y = spike if delay_shift else shift(spike, 1)
        return [y.detach(), *states, *gradients_of([y], leaves)[1]]

    for mine, expected in zip(
        both(lambda: outcome(True)), both(lambda: outcome(False)), strict=True
    ):
        assert_same(mine, expected)


def uncancelled(run_it):
    """``run_it`` on the reference, its gradients as if no terms cancelled: sums are of magnitudes.

    A decay's gradient is a sum over steps and neurons, and its rounding a share of its terms'
    magnitudes. The terms may cancel to a millionth of them: its own size says nothing of it.
    """
    summed, to_size = Tensor.sum, Tensor.sum_to_size

    def magnitudes(x):
        return x.abs() if x.is_floating_point() else x

    patched = {
        "sum": lambda x, *dims, **settings: summed(magnitudes(x), *dims, **settings),
        "sum_to_size": lambda x, *size: to_size(magnitudes(x), *size),
    }
    with kernels.use_backend("torch"), mock.patch.multiple(Tensor, **patched):
        return run_it()


def assert_same_everywhere(run_it, monkeypatch):
    """One result on every instruction set and number of threads; close to the reference's.

    ``run_it`` gives sequences and gradients. The sequences are the reference's to the bit.
    """
    sequences, gradients = both(run_it)[0]
    magnitudes = uncancelled(run_it)[1]
    before = torch.get_num_threads()
    there = len(native._native.instruction_sets())
    try:
        for instructions in INSTRUCTION_SETS[:there]:
            monkeypatch.setattr(native, "instructions", instructions)
            first: list[Tensor] | None = None
            for threads in (1, 2, 8):
                torch.set_num_threads(threads)
                mine, my_gradients = both(run_it)[1]
                assert_same(mine, sequences)
                assert_close(my_gradients, gradients, magnitudes)
                first = first or my_gradients
                assert_same(my_gradients, first)
    finally:
        torch.set_num_threads(before)
