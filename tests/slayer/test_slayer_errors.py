"""What can't be done is one BridgeError of one line: what was expected, and what was found."""

import io
import pickle
from functools import partial

import pytest
import torch

from lava_bridge import slayer, use_backend
from lava_bridge.errors import BridgeError
from lava_bridge.exchange import CubaLIFNode
from lava_bridge.quantize import right_shift_to_zero

from .cases import CASES
from .files import exported
from .strategies import FIRING, RESONATORS, blocks_neuron

cuba, synapse, norm = slayer.block.cuba, slayer.synapse, slayer.neuron.norm


def neuron(**changes):
    return slayer.neuron.cuba.Neuron(
        **{"threshold": 1, "current_decay": 0.2, "voltage_decay": 0.1, **changes}
    )


def after(module, first):
    """The module, after it has seen ``first``."""
    module(first)
    return module


def loaded_norm(name):
    """A norm that has not run, with the statistics of three channels."""
    made = getattr(norm, name)()
    made.load_state_dict(after(getattr(norm, name)(), torch.rand(2, 3, 4)).state_dict())
    return made.eval()


ELSEWHERE = {
    **{
        name: lambda name=name: getattr(slayer.neuron, name).Neuron(**FIRING[name])
        for name in FIRING
    },
    "delay": slayer.axon.Delay,
    "delta": lambda: slayer.axon.Delta(0.1),
    "sigma": slayer.dendrite.Sigma,
    "node": lambda: CubaLIFNode(0.3, 0.1, step_mode="m"),
    "single steps": lambda: CubaLIFNode(0.3, 0.1),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_module_on_another_device_than_its_input_says_where_to_move_it(name):
    module, x = ELSEWHERE[name](), torch.ones(2, 3, 5, device="meta")
    x = (x, x) if name in RESONATORS else x
    assert module(x).is_meta  # shapes may be asked for wherever the module is
    x = torch.ones(2, 3, 5)
    x = (x, x) if name in RESONATORS else x
    with pytest.raises(BridgeError, match=r"on meta, where the module is, found cpu; .*'cpu'"):
        module.to("meta")(x)
    if name in RESONATORS:  # one part of a pair only
        with pytest.raises(BridgeError, match="on meta, where the module is, found cpu"):
            module((x[0].to("meta"), x[1]))


def no_steps(backend):
    with use_backend(backend):
        slayer.neuron.cuba.Neuron(1.0, 0.1, 0.1)(torch.rand(2, 3, 0))


def params():
    return blocks_neuron(slayer)


# What is done, and the words of what it found and what it expected.
CASES_OF_ERROR = {
    "a neuron given no channels": (
        lambda: neuron()(torch.zeros(2, 3)),
        ["[N, C, *, T]", "(2, 3)"],
    ),
    "a neuron given integers": (
        lambda: neuron()(torch.zeros(2, 3, 4, dtype=torch.int64)),
        ["floating", "int64"],
    ),
    "a neuron given another shape": (
        lambda: after(neuron(), torch.zeros(2, 3, 4))(torch.zeros(2, 5, 4)),
        ["(3,)", "(5,)"],
    ),
    "a neuron given pixels after a row": (
        lambda: after(neuron(), torch.zeros(2, 3, 4))(torch.zeros(2, 3, 1, 1, 4)),
        ["(3,)", "(3, 1, 1)"],
    ),
    "a neuron that shares a range": (
        lambda: neuron(current_decay=(0.1, 0.2)),
        ["current_decay", "shared_param", "(0.1, 0.2)"],
    ),
    "a neuron with a range of three": (
        lambda: neuron(voltage_decay=(0.1, 0.2, 0.3), shared_param=False),
        ["voltage_decay", "(min, max)", "(0.1, 0.2, 0.3)"],
    ),
    "a neuron with coarse states": (
        lambda: slayer.neuron.base.Neuron(1, w_scale=64, s_scale=32),
        ["s_scale=32", "w_scale=64"],
    ),
    "a spike without a surrogate": (
        lambda: neuron(threshold=0)(torch.ones(1, 1, 1, requires_grad=True)).sum().backward(),
        ["tau_rho = 0", "1 / scale"],
    ),
    "a norm given a vector": (
        lambda: norm.MeanOnlyBatchNorm()(torch.zeros(3)),
        ["[N, C, *]", "(3,)"],
    ),
    "a norm given other channels": (
        lambda: after(norm.WgtScaleBatchNorm(), torch.zeros(2, 3, 4))(torch.zeros(2, 5, 4)),
        ["3 channels", "(2, 5, 4)"],
    ),
    "a loaded norm given other channels": (
        lambda: loaded_norm("MeanOnlyBatchNorm")(torch.zeros(2, 5, 4)),
        ["3 channels", "(2, 5, 4)"],
    ),
    "a delay given no channels": (
        lambda: slayer.axon.Delay()(torch.zeros(2, 3)),
        ["[N, C, *, T]", "(2, 3)"],
    ),
    "a delay given other channels": (
        lambda: after(slayer.axon.Delay(), torch.zeros(2, 3, 4))(torch.zeros(2, 5, 4)),
        ["3 channels", "5"],
    ),
    "a kernel of three sizes": (
        lambda: synapse.Conv(1, 2, (3, 3, 3)),
        ["kernel_size", "(height, width)", "(3, 3, 3)"],
    ),
    "a stride of half a pixel": (
        lambda: synapse.ConvTranspose(1, 2, 2, stride=(1, 0.5)),
        ["stride", "(height, width)", "(1, 0.5)"],
    ),
    "a padding of one size in a tuple": (
        lambda: synapse.Pool(2, padding=(1,)),
        ["padding", "(height, width)", "(1,)"],
    ),
    "in_neurons of four sizes": (
        lambda: synapse.Dense((2, 2, 2, 2), 3),
        ["in_neurons", "(W, H, C)", "(2, 2, 2, 2)"],
    ),
    "out_neurons of two sizes": (
        lambda: synapse.Dense(3, (2, 2)),
        ["out_neurons", "int", "(2, 2)"],
    ),
    "a convolution given a row": (
        lambda: synapse.Conv(3, 2, 1)(torch.zeros(2, 3, 4)),
        ["Conv", "[N, C, H, W, T]", "(2, 3, 4)"],
    ),
    "a pool given a row": (
        lambda: synapse.Pool(2)(torch.zeros(2, 3, 4)),
        ["Pool", "[N, C, H, W, T]", "(2, 3, 4)"],
    ),
    "a dense synapse given four dimensions": (
        lambda: synapse.Dense(3, 2)(torch.zeros(2, 3, 4, 5)),
        ["Dense", "[N, C, H, W, T]", "(2, 3, 4, 5)"],
    ),
    "a dense synapse over a plane given a row": (
        lambda: synapse.Dense((2, 4, 3), 5)(torch.zeros(2, 3, 6)),
        ["Dense", "[N, C, H, W, T]", "(2, 3, 6)"],
    ),
    "a dense synapse given other channels": (
        lambda: synapse.Dense(3, 2)(torch.zeros(2, 4, 5)),
        ["3 channels", "(2, 4, 5)"],
    ),
    "a convolution given other channels": (
        lambda: synapse.Conv(3, 2, 1)(torch.zeros(2, 4, 5, 5, 6)),
        ["3 channels", "(2, 4, 5, 5, 6)"],
    ),
    "a synapse given integers": (
        lambda: synapse.Dense(3, 2)(torch.zeros(2, 3, 5, dtype=torch.int32)),
        ["floating", "int32"],
    ),
    "a block given booleans": (
        lambda: cuba.Conv(params(), 3, 2, 1)(torch.zeros(2, 3, 5, 5, 6, dtype=torch.bool)),
        ["floating", "bool"],
    ),
    "infer_shape of other channels": (
        lambda: cuba.Conv(params(), 3, 2, 1).infer_shape((4, 5, 5)),
        ["(3, H, W)", "(4, 5, 5)"],
    ),
    "infer_shape of a row for a convolution": (
        lambda: cuba.ConvT(params(), 3, 2, 1).infer_shape((3,)),
        ["(3, H, W)", "(3,)"],
    ),
    "infer_shape of a row for a pool": (
        lambda: cuba.Pool(params(), 2).infer_shape((3,)),
        ["Pool", "(3,)", "H, W"],
    ),
    "infer_shape of another number of neurons": (
        lambda: cuba.Dense(params(), 3, 2).infer_shape((4,)),
        ["3 neurons", "(4,)"],
    ),
    "infer_shape of an image for a row": (
        lambda: cuba.Dense(params(), 12, 2).infer_shape((3, 2, 2)),
        ["12 neurons", "(3, 2, 2)", "Flatten"],
    ),
    "infer_shape of an image below the kernel": (
        lambda: cuba.Conv(params(), 3, 2, 5).infer_shape((3, 4, 4)),
        ["(5, 5)", "(3, 4, 4)"],
    ),
    "an average of unequal groups": (
        lambda: cuba.Average(4)(torch.zeros(2, 6, 3)),
        ["4 groups", "(6,)"],
    ),
    "an average of no groups": (
        lambda: cuba.Average(0),
        ["num_outputs", "0"],
    ),
    "a decimation by 0": (lambda: cuba.TimeDecimation(0), ["power of 2", "0"]),
    "a decimation by 3": (lambda: cuba.TimeDecimation(3), ["power of 2", "3"]),
    "a decimation by -4": (lambda: cuba.TimeDecimation(-4), ["power of 2", "-4"]),
    "a decimation by a float": (lambda: cuba.TimeDecimation(2.0), ["power of 2", "2.0"]),
    "an export without a shape": (
        lambda: exported(CASES["Conv"].build(slayer)),
        ["Conv", "shape", "infer_shape"],
    ),
    "an export without a quantiser": (
        lambda: exported(cuba.Dense(params(), 3, 2, pre_hook_fx=None)),
        ["pre_hook_fx", "quantize_8bit"],
    ),
    "a quantiser of no mode": (
        lambda: slayer.utils.quantize(torch.zeros(1), mode=7),
        ["MODE.ROUND", "7"],
    ),
    "a sparse input": (
        lambda: slayer.neuron.cuba.Neuron(1.0, 0.1, 0.1)(torch.rand(2, 3, 4).to_sparse()),
        ["cuba.Neuron", "a dense tensor", "a sparse_coo float32 tensor", "input.to_dense()"],
    ),
    "a sparse input of a synapse": (
        lambda: slayer.synapse.Dense(3, 2)(torch.rand(2, 3, 4).to_sparse()),
        ["synapse.Dense", "a dense tensor", "input.to_dense()"],
    ),
    "sequences of several lengths": (
        lambda: slayer.neuron.cuba.Neuron(1.0, 0.1, 0.1)(
            torch.nested.nested_tensor([torch.rand(3, 4), torch.rand(3, 5)])
        ),
        ["cuba.Neuron", "a nested tensor of 2", "to_padded_tensor"],
    ),
    **{
        f"no time step, {backend}": (partial(no_steps, backend), ["cuba.Neuron", "(2, 3, 0)"])
        for backend in ("torch", "auto")
    },
    "a shift of floats": (
        lambda: right_shift_to_zero(torch.zeros(1), 2),
        ["int64", "float32"],
    ),
}


@pytest.mark.parametrize("case", CASES_OF_ERROR)
def test_it_is_one_line_that_names_what_was_found_and_expected(case):
    do, words = CASES_OF_ERROR[case]
    with pytest.raises(BridgeError) as caught:
        do()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


class AsOurs(pickle.Unpickler):
    """Finds our class where a pickle names one of Lava's, as after ``as_lava()``."""

    def find_class(self, module, name):
        ours = module.replace("lava.lib.dl.slayer", "lava_bridge.slayer")
        return super().find_class(ours, name)


@pytest.mark.parametrize("kind", ["neuron", "block"])
def test_a_pickle_of_lavas_is_refused_when_it_is_read(kind, lava):
    params = {"threshold": 1, "current_decay": 0.2, "voltage_decay": 0.1}
    made = lava.neuron.cuba.Neuron(**params)
    if kind == "block":
        made = lava.block.cuba.Dense(params, 3, 2)
    with pytest.raises(BridgeError, match=r"^Neuron: .*found one of lava-dl's; .* state_dict\(\)"):
        AsOurs(io.BytesIO(pickle.dumps(made))).load()


@pytest.mark.parametrize("name", FIRING)
def test_every_neuron_says_whether_it_has_a_norm(lava, name):
    for which in (slayer, lava):
        assert getattr(which.neuron, name).Neuron(**FIRING[name]).norm is None
    assert slayer.jitconfig.VERBOSE is lava.jitconfig.VERBOSE is False
