"""Make the small nets and inputs whose every state netx_traces.py records in Lava's own netx.

Run with the project's environment:

    python tests/reference/make_integer_nets.py tests/data/loihi

It writes NAME.net and NAME.npz with the input ``x`` ``[N, *, T]`` and ``kwargs``, the arguments of
``Network`` as JSON; what was recorded there before is lost, so netx_traces.py has to follow.

Nets that slayer's blocks can say come from make_netx_inputs.py, through
:func:`lava_bridge.export_hdf5`. The others are written with h5py as they stand here: what no block
gives (odd weights, decays of 0, thresholds out of reach) and yet Lava runs.

Real Lava can't load these, so that there is no recording of them:

- a dense layer whose weights are all 0 (``OverflowError``: it scales by the largest of them);
- ``sigma_output`` with a bias (``TypeError``), thresholds of SDNN or RF for each channel;
- an input layer of resonators (no ``a_in``), a layer of type ``dense_comp`` (it has no method);
- delays below 0 (``ValueError``), or neither as many as inputs nor as outputs.

It also takes delays of each weight, and decays above 4096, which slayer never writes and
``lava_bridge.netx`` refuses, as it does weights of one sign beyond eight bits: Lava makes them 0.
"""

import argparse
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import make_netx_inputs as exported
import net_layers
import numpy as np
from delay_nets import delay_inputs, delay_outputs, delay_planes, delay_scalar, neuron_arrays
from net_layers import (
    STEPS,
    Case,
    Draw,
    Layer,
    conv,
    cuba,
    dense,
    flatten,
    input_layer,
    resonator,
    sdnn,
)

import lava_bridge


def odd_weights(draw: Draw) -> Case:
    """Weights of both signs: odd ones, -256 and 254, and 255 and -300, which are clipped."""
    first = draw.ints((9, 10), -90, 101)
    first[0, :4] = (-256, 254, 255, -300)
    second = draw.ints((6, 9), -30, 53)
    return Case([dense(first, cuba(300)), dense(second, cuba(150))], (10,))


def positive_weights(draw: Draw) -> Case:
    """Weights of one sign: odd ones up to 255, and small ones that are shifted for the chip."""
    first = draw.ints((8, 10), 1, 40)
    first[0, 0] = 255
    second = draw.ints((6, 8), 0, 11)
    return Case([dense(first, cuba(400)), dense(second, cuba(90))], (10,), rate=0.25)


def negative_weights(draw: Draw) -> Case:
    """No positive weight, in layers that a bias drives: what the chip's eight bits cut off."""
    layers, inputs = [], 10
    for low, rest in ((-256, -30), (-64, -3), (-127, 0), (-200, 0), (-100, -2), (-256, 0)):
        weight = draw.even((7, inputs), rest - 20, rest)
        weight[draw.random.random(weight.shape) < 0.4] = rest
        weight[0, 0] = low
        layers.append(dense(weight, cuba(100, 4096, 300), bias=draw.ints(7, 20, 60)))
        inputs = 7
    return Case(layers, (10,), rate=0.1)


def vanishing_weights(draw: Draw) -> Case:
    """Matrices that eight bits can hold and Lava yet makes 0: -256, -1, odd ones and 0."""
    thirds = -draw.ints((6, 7), 0, 140)
    thirds[0, :2] = (0, -199)
    layers = [
        dense(np.full((8, 10), -256), cuba(100, 4096, 300), bias=draw.ints(8, 20, 60)),
        dense(np.full((7, 8), -1), cuba(100, 4096, 300), bias=draw.ints(7, 20, 60)),
        dense(thirds, cuba(100, 4096, 300), bias=draw.ints(6, 20, 60)),
    ]
    return Case(layers, (10,))


def conv_windows(draw: Draw) -> Case:
    """Strides, padding, dilation and groups that differ in height and width, flatten, dense."""
    shape = (4, 7, 5)
    first = conv(
        shape,
        draw.ints((6, 2, 3, 2), -60, 90),
        cuba(300),
        {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 3)},
        groups=2,
    )
    second = conv(
        first["shape"],
        draw.ints((3, 2, 2, 3), -50, 80),
        cuba(250),
        {"stride": (1, 2), "padding": (0, 1), "dilation": (2, 1)},
        groups=3,
    )
    size = math.prod(second["shape"])
    last = dense(draw.ints((5, size), -40, 55), cuba(250))
    return Case([input_layer(shape), first, second, flatten(), last], shape)


def conv_large_weights(draw: Draw) -> Case:
    """A convolution's weights are not held to eight bits; a bias for each channel."""
    shape = (2, 5, 4)
    weight = draw.ints((3, 2, 2, 2), -900, 1000)
    made = conv(shape, weight, cuba(2000), bias=draw.ints(3, -500, 900))
    return Case([input_layer(shape), made], shape)


def bias_dense(draw: Draw) -> Case:
    """Biases below and above 0, at the ends of 13 bits, and real numbers, cut toward 0."""
    bias = np.array([-4096, 4095, -1, 0, 63, 10.9, -10.9, 300])
    layers = [dense(draw.even((8, 10), -60, 90), cuba(400), bias=bias)]
    layers.append(dense(draw.even((6, 8), -60, 90), cuba(300), bias=draw.ints(6, -40, 60)))
    return Case(layers, (10,))


def bias_conv(draw: Draw) -> Case:
    shape = (2, 4, 5)
    first = conv(shape, draw.even((4, 2, 2, 2), -60, 90), cuba(200), bias=draw.ints(4, -30, 40))
    second = conv(
        first["shape"], draw.even((2, 4, 1, 3), -60, 90), cuba(200), bias=np.array([-4096, 4095])
    )
    return Case([input_layer(shape), first, second], shape)


def bias_wraps(draw: Draw) -> Case:
    """Lava keeps a bias in 16 bits."""
    bias = np.array([32767, 32768, -32768, -32769, 65536 + 90, -65536 - 90, 98304, 40])
    return Case([dense(draw.even((8, 10), -60, 90), cuba(2000, 1024, 300), bias=bias)], (10,))


def three_biased(draw: Draw) -> list[Layer]:
    sizes = (10, 8, 7, 6)
    return [
        dense(
            draw.even((after, before), -40, 80),
            cuba(300, 700, 300),
            bias=draw.ints(after, -10, 40),
        )
        for before, after in itertools.pairwise(sizes)
    ]


def reset(draw: Draw) -> Case:
    return Case(three_biased(draw), (10,), {"reset_interval": 5, "reset_offset": 2})


def reset_at_once(draw: Draw) -> Case:
    """An offset above the interval, and more layers than steps in the interval."""
    return Case(three_biased(draw), (10,), {"reset_interval": 3, "reset_offset": 7})


def reset_skip(draw: Draw) -> Case:
    """A layer that is left out does not count for the offset."""
    kwargs = {"reset_interval": 6, "reset_offset": 1, "skip_layers": 1}
    return Case(three_biased(draw), (8,), kwargs)


def reset_when_input_comes(draw: Draw) -> Case:
    """What biases did until the input comes to a layer is forgotten at that step."""
    return Case(three_biased(draw), (10,), {"reset_interval": 1 << 20, "reset_offset": 1})


def num_layers(draw: Draw) -> Case:
    return Case(three_biased(draw), (10,), {"num_layers": 2})


def skip_conv(draw: Draw) -> Case:
    """The input's layer, with neurons, and a convolution are left out."""
    shape = (2, 6, 5)
    first = conv(shape, draw.even((3, 2, 2, 2), -60, 90), cuba(200))
    second = conv(first["shape"], draw.even((4, 3, 3, 2), -60, 90), cuba(200))
    last = dense(draw.even((5, math.prod(second["shape"])), -40, 60), cuba(300))
    layers = [input_layer(shape, neuron=cuba()), first, second, flatten(), last]
    return Case(layers, first["shape"], {"skip_layers": 2})


def input_shape(draw: Draw) -> Case:
    """No input layer: the shape is an argument, in Lava's order (W, H, C)."""
    made = conv((2, 6, 5), draw.even((3, 2, 2, 2), -60, 90), cuba(150))
    return Case([made], (2, 6, 5), {"input_shape": (5, 6, 2)})


def flatten_after_skip(draw: Draw) -> Case:
    """A convolution is left out, and the flatten after it then does nothing."""
    made = conv((2, 4, 3), draw.even((3, 2, 2, 2), -60, 90), cuba(150))
    last = dense(draw.even((6, math.prod(made["shape"])), -60, 80), cuba(200))
    layers = [input_layer((2, 4, 3)), made, flatten(), last]
    return Case(layers, made["shape"], {"skip_layers": 2})


def recurrent_odd(draw: Draw) -> Case:
    """Both matrices together decide how far they are shifted."""
    more = {"weight_rec": draw.ints((8, 8), -21, 9), "bias": draw.ints(8, 0, 12)}
    first = dense(draw.ints((8, 10), -50, 101), cuba(250), **more)
    second = dense(draw.ints((6, 8), -30, 55), cuba(100), weight_rec=-draw.ints((6, 6), 1, 40))
    return Case([{**layer, "type": "dense_rec"} for layer in (first, second)], (10,))


def graded_dense(draw: Draw) -> Case:
    """Graded spikes of both signs come in."""
    layers = [
        dense(draw.even((8, 10), -60, 70), cuba(5000)),
        dense(draw.even((6, 8), -60, 90), cuba()),
    ]
    return Case(layers, (10,), {"input_message_bits": 8}, values=(-128, 127))


def graded_conv(draw: Draw) -> Case:
    shape = (2, 5, 4)
    first = conv(shape, draw.even((3, 2, 2, 3), -60, 70), cuba(4000))
    last = dense(draw.even((6, math.prod(first["shape"])), -60, 80), cuba(100))
    layers = [input_layer(shape), first, flatten(), last]
    return Case(layers, shape, {"input_message_bits": 16}, values=(-300, 300))


def ungraded(draw: Draw) -> Case:
    """Without message bits all that is not 0 is one spike."""
    shape = (2, 4, 3)
    first = conv(shape, draw.even((3, 2, 2, 2), -60, 90), cuba(200))
    last = dense(draw.even((6, math.prod(first["shape"])), -60, 80), cuba(300))
    return Case([input_layer(shape), first, flatten(), last], shape, values=(-3, 3))


def decays(draw: Draw) -> Case:
    """All decays at their ends, against each other: of the current, then of the voltage."""
    layers, inputs = [], 10
    for current, voltage in ((0, 4096), (1, 4095), (4095, 1), (4096, 0), (2, 2)):
        layers.append(
            dense(
                draw.even((7, inputs), -60, 70),
                cuba(150, current, voltage),
                bias=draw.ints(7, -6, 9),
            )
        )
        inputs = 7
    return Case(layers, (10,))


def channel_decays(draw: Draw) -> Case:
    """Decays and thresholds of each channel."""
    shape = (2, 5, 4)
    each = cuba(draw.ints(4, 60, 140), draw.ints(4, 0, 4096), draw.ints(4, 0, 4096))
    first = conv(shape, draw.even((4, 2, 2, 3), -60, 90), each)
    each = cuba(draw.ints(6, 60, 140), draw.ints(6, 0, 4096), draw.ints(6, 0, 4096))
    last = dense(draw.even((6, math.prod(first["shape"])), -60, 80), each)
    return Case([input_layer(shape), first, flatten(), last], shape)


def thresholds(draw: Draw) -> Case:
    """A threshold of 0, the largest of 17 bits, and one above."""
    layers, inputs = [], 10
    for threshold in (131071, 0, 1):
        bias = draw.ints(7, 2000, 4095) if threshold > 1 else draw.ints(7, -40, 9)
        layers.append(dense(draw.even((7, inputs), -60, 90), cuba(threshold, 1024, 0), bias=bias))
        inputs = 7
    layers.append(dense(draw.even((5, 7), -60, 90), cuba(131072, 1024, 0), bias=draw.ints(5, 0, 9)))
    return Case(layers, (10,), steps=40)


def no_neuron(draw: Draw) -> Case:
    """A last layer without neurons shows its current as a voltage."""
    layers = [dense(draw.even((8, 10), -60, 90), cuba(50)), dense(draw.even((4, 8), -60, 90), None)]
    return Case(layers, (10,))


# 2^17 << 6 is 2^23, the limit; 2^18 << 6 a whole period; 2^25 << 6 is 2^31, beyond int32.
WRAPPED = (131072, 131071, 131073, -131072, -131071, -131073, 262144, -262144, 1 << 24, -(1 << 25))


def wrapped_current(draw: Draw) -> Case:
    """Currents at, beyond and far beyond 24 bits, of both signs, from graded input."""
    x = np.zeros((net_layers.SAMPLES, len(WRAPPED), STEPS), dtype=np.int32)
    x[0, :, 0] = WRAPPED
    x[1, :, : -net_layers.SILENT_STEPS : 5] = np.array(WRAPPED)[::-1, None]
    x[0, :, 6] = 1
    x[0, :, 9] = np.roll(WRAPPED, 3)
    layers = [dense(np.eye(10, dtype=int) * 2 - np.eye(10, dtype=int, k=1), cuba(131071, 0, 4096))]
    return Case(layers, (10,), {"input_message_bits": 24}, x=x)


def clipped_voltage(draw: Draw) -> Case:
    """Voltages that reach both limits, by large currents and biases of both signs."""
    weight = np.zeros((8, 10), dtype=int)
    weight[:4, :5] = 254
    weight[4:, 5:] = -256
    bias = np.array([4095, 0, 4095, -4096, -4096, 0, 4095, -4096])
    layers = [dense(weight, cuba(131072, 40, 0), bias=bias)]
    layers.append(dense(draw.even((6, 8), -60, 90), cuba(40, 4096, 0), bias=draw.ints(6, 0, 30)))
    return Case(layers, (10,), {"input_message_bits": 8}, values=(0, 60), steps=24)


def cuba_input(draw: Draw) -> Case:
    """An input layer of neurons, driven by its bias, which each step's input is."""
    shape = (2, 5, 4)
    source = input_layer(shape, neuron=cuba(300, 4096, 300), weight=36, bias=34)
    first = conv(shape, draw.even((3, 2, 2, 3), -60, 90), cuba(300), bias=draw.ints(3, -9, 9))
    last = dense(draw.even((6, math.prod(first["shape"])), -60, 80), cuba(300))
    return Case([source, first, flatten(), last], shape, values=(-1, 5), rate=1)


def cuba_input_reset(draw: Draw) -> Case:
    """With the weight and bias that Lava takes by default; all layers are reset."""
    source = input_layer((10,), neuron=cuba(200, 4096, 300))
    layers = [source, dense(draw.even((6, 10), -60, 80), cuba(100))]
    return Case(layers, (10,), {"reset_interval": 7}, values=(-1, 3), rate=1)


def sigma_delta(draw: Draw) -> list[Layer]:
    shape = (2, 5, 4)
    first = conv(shape, draw.even((3, 2, 2, 3), -20, 24), sdnn(3), bias=draw.ints(3, -9, 9))
    hidden = dense(
        draw.even((6, math.prod(first["shape"])), -14, 18), sdnn(5), bias=draw.ints(6, -5, 30)
    )
    last = dense(draw.even((4, 6), -18, 20), sdnn(6, sigma_output=True))
    return [input_layer(shape, neuron=sdnn(2)), first, flatten(), hidden, last]


def sdnn_exp6(draw: Draw) -> Case:
    return Case(sigma_delta(draw), (2, 5, 4), values=(-40, 60), rate=0.8)


def sdnn_exp0(draw: Draw) -> Case:
    return Case(sigma_delta(draw), (2, 5, 4), {"spike_exp": 0}, values=(-40, 60), rate=0.8)


def sdnn_exp3_skip(draw: Draw) -> Case:
    """Without the input's layer, fed with its graded spikes."""
    kwargs = {"spike_exp": 3, "skip_layers": 1}
    return Case(sigma_delta(draw), (2, 5, 4), kwargs, values=(-400, 500))


def sdnn_thresholds(draw: Draw) -> Case:
    """A threshold of 0, delays, and no output layer of its own."""
    layers = [
        input_layer((10,), neuron=sdnn(0)),
        dense(draw.ints((8, 10), -9, 16), sdnn(0), bias=draw.ints(8, -9, 30)),
        dense(draw.even((6, 8), -18, 20), sdnn(9), delay=draw.ints(6, 0, 4)),
    ]
    return Case(layers, (10,), values=(-30, 40), rate=0.8)


def sdnn_overflow(draw: Draw) -> Case:
    """Activations beyond 24 and beyond 32 bits."""
    weight = draw.even((6, 10), -200, 240)
    layers = [
        input_layer((10,), neuron=sdnn(1)),
        dense(weight, sdnn(20), bias=np.array([4095, 0, -4096, 90, 300000, 600000])),
        dense(draw.even((4, 6), -200, 240), sdnn(6, sigma_output=True)),
    ]
    return Case(layers, (10,), values=(-30000, 30000), rate=0.8)


def resonators(draw: Draw, kind: str, thresholds: tuple[int, int]) -> Case:
    layers, inputs = [], 10
    for outputs, threshold, period, decay in (
        (9, thresholds[0], 7.3, 0.07),
        (6, thresholds[1], 11, 0.2),
    ):
        made = dense(
            draw.even((outputs, inputs), -70, 90), resonator(kind, threshold, period, decay)
        )
        made["weight"] = {"real": made["weight"], "imag": draw.ints((outputs, inputs), -71, 90)}
        layers.append(made)
        inputs = outputs
    return Case(layers, (10,), steps=24)


def rf_phase(draw: Draw) -> Case:
    return resonators(draw, "RF_PHASE", (40, 30))


def rf_izhikevich(draw: Draw) -> Case:
    return resonators(draw, "RF_IZHIKEVICH", (130, 60))


def rf_extremes(draw: Draw) -> Case:
    """Resonators at the limits of their states, and turns beyond a quarter and backwards."""
    layers, inputs = [], 10
    for kind, threshold, period in (("RF_PHASE", 0, 3.1), ("RF_IZHIKEVICH", 900, 5.2)):
        neuron = resonator(kind, threshold, period, 0.002)
        made = dense(draw.even((6, inputs), -200, 254), neuron)
        made["weight"] = {"real": made["weight"], "imag": draw.even((6, inputs), -256, 200)}
        layers.append(made)
        inputs = 6
    return Case(layers, (10,), {"input_message_bits": 12}, values=(-900, 2000))


# Those of make_netx_inputs.py that no other case is like.
EXPORTED = ("conv", "cuba", "recurrent", "rf")

# The place in the list is the seed.
CASES: list[Callable[[Draw], Case]] = [
    odd_weights,
    positive_weights,
    negative_weights,
    vanishing_weights,
    conv_windows,
    conv_large_weights,
    delay_outputs,
    delay_inputs,
    delay_scalar,
    bias_dense,
    bias_conv,
    reset,
    reset_at_once,
    reset_skip,
    num_layers,
    skip_conv,
    input_shape,
    flatten_after_skip,
    recurrent_odd,
    graded_dense,
    graded_conv,
    ungraded,
    decays,
    channel_decays,
    thresholds,
    no_neuron,
    wrapped_current,
    clipped_voltage,
    cuba_input,
    cuba_input_reset,
    sdnn_exp6,
    sdnn_exp0,
    sdnn_exp3_skip,
    sdnn_thresholds,
    sdnn_overflow,
    rf_phase,
    rf_izhikevich,
    rf_extremes,
    bias_wraps,
    neuron_arrays,
    delay_planes,
    reset_when_input_comes,
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the nets and inputs for netx_traces.py.")
    parser.add_argument("folder", type=Path, help="where to write, as tests/data/loihi")
    parser.add_argument("names", nargs="*", help="only these names (default: all)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for seed, make in enumerate(CASES):
        if make.__name__ in (arguments.names or [make.__name__]):
            draw, path = Draw(seed), arguments.folder / f"{make.__name__}.net"
            case = make(draw)
            net_layers.write_net(path, case.layers)
            x, kwargs = net_layers.drawn_input(case, draw), json.dumps(case.kwargs or {})
            np.savez_compressed(path.with_suffix(".npz"), x=x, kwargs=kwargs)
    for seed, export in enumerate(exported.NETS):
        name = f"blocks_{export.__name__}"
        if export.__name__ in EXPORTED and name in (arguments.names or [name]):
            drawing, path = exported.Draw(seed), arguments.folder / f"{name}.net"
            blocks, shape = export(drawing)
            lava_bridge.export_hdf5(blocks, path, input_shape=shape)
            size = (net_layers.SAMPLES, *shape, STEPS)
            x = (drawing.random.random(size) < exported.INPUT_RATE).astype(np.int32)
            x[..., -net_layers.SILENT_STEPS :] = 0
            np.savez_compressed(path.with_suffix(".npz"), x=x, kwargs="{}")


if __name__ == "__main__":
    main()
