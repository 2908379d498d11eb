"""Nets with a convolution, run on Lava (tests/reference/conv_runs.py) and on lava_bridge.proc."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

# The source starts over after DATA steps; the sink keeps the last BUFFER of STEPS.
DATA, BUFFER, STEPS = 5, 6, 8


@dataclass(frozen=True)
class Net:
    """A net: its weight [C', kW, kH, C / groups], its input, and how it is wired.

    Attributes:
        messages: They are in ``[-messages, messages]``.
        weights: ``bytes`` (8 bits, signed), ``small`` (3 bits), ``grid`` (of 1/64),
            ``floats``.
        wiring: ``plain``: source, conv, sink; ``chain``: two convs; ``sum``: two sources;
            ``loop``: the conv feeds itself too; ``edited``: variables are set between two runs.
    """

    tag: str = "fixed_pt"
    weight: tuple[int, int, int, int] = (3, 3, 2, 2)
    input_shape: tuple[int, int, int] = (6, 5, 2)
    num_message_bits: int = 8
    messages: int = 100
    weights: str = "bytes"
    wiring: str = "plain"
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    weight_exp: int = 0


NETS = {
    "spikes": Net(num_message_bits=0),
    "spikes_of_any_value": Net(num_message_bits=0, messages=1),
    "graded": Net(),
    "strided": Net(stride=(2, 3), input_shape=(9, 10, 2)),
    "padded": Net(padding=(1, 4)),
    "dilated": Net(dilation=(2, 3), padding=(2, 1)),
    "grouped": Net(weight=(6, 3, 3, 2), input_shape=(5, 5, 6), groups=3),
    "depthwise": Net(weight=(4, 3, 3, 1), input_shape=(5, 4, 4), groups=4, padding=1),
    "all": Net(
        weight=(4, 2, 4, 3),
        input_shape=(11, 9, 6),
        stride=(3, 2),
        padding=(2, 3),
        dilation=(2, 1),
        groups=2,
    ),
    # Beyond 24 bits, within the 32 that Lava computes with.
    "wraps": Net(messages=900_000, num_message_bits=24),
    "weight_exp": Net(weight_exp=3),
    "cut_to_integers": Net(weights="floats"),
    "chain": Net(weight=(2, 3, 3, 2), padding=1, wiring="chain"),
    "sum": Net(wiring="sum"),
    # (Of full weights a loop's sums soon exceed the 32 bits.)
    "loop": Net(weight=(2, 3, 3, 2), padding=1, wiring="loop", weights="small"),
    "edited": Net(wiring="edited"),
    "float_spikes": Net(tag="floating_pt", num_message_bits=0, weights="grid", padding=1),
    "float_graded": Net(tag="floating_pt", weights="grid", stride=2, groups=2, weight=(4, 3, 2, 1)),
    "float_loop": Net("floating_pt", (2, 3, 3, 2), padding=1, wiring="loop", weights="small"),
    "float_any": Net(tag="floating_pt", weights="floats"),
}


def arrays(net: Net, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight, and messages ``[W, H, C, T]``, a third of which are not zero."""
    rng = np.random.default_rng(seed)
    bytes_ = rng.integers(-128, 128, net.weight)
    weight = {"bytes": bytes_, "small": bytes_ // 32, "grid": bytes_ / 64, "floats": bytes_ / 7}[
        net.weights
    ]
    x = rng.integers(-net.messages, net.messages + 1, (*net.input_shape, DATA))
    return weight, x * (rng.random(x.shape) < 1 / 3)


def run(lava: SimpleNamespace, net: Net, weight: np.ndarray, x: np.ndarray) -> dict[str, Any]:
    """Run the net and give what the sink keeps and what the convolution holds.

    ``lava`` has Conv, RunSteps, Loihi2SimCfg and io, of Lava or as Lava's.
    """
    sizes = {
        name: getattr(net, name)
        for name in ("num_message_bits", "stride", "padding", "dilation", "groups", "weight_exp")
    }
    conv = lava.Conv(weight=weight, input_shape=net.input_shape, **sizes)
    source = lava.io.source.RingBuffer(data=x)
    source.s_out.connect(conv.s_in)
    last = conv
    if net.wiring == "chain":
        last = lava.Conv(weight=weight, input_shape=conv.output_shape, **sizes)
        conv.a_out.connect(last.s_in)
    if net.wiring == "sum":
        other = lava.io.source.RingBuffer(data=x[..., ::-1])
        other.s_out.connect(conv.s_in)
    if net.wiring == "loop":
        conv.a_out.connect(conv.s_in)
    sink = lava.io.sink.RingBuffer(shape=last.output_shape, buffer=BUFFER)
    last.a_out.connect(sink.a_in)
    steps = [3, STEPS - 3] if net.wiring == "edited" else [STEPS]
    try:
        for i, count in enumerate(steps):
            if i:
                conv.weight.set(-conv.weight.get())
                conv.a_buf.set(np.full(conv.output_shape, 2.75))
            # From any of the processes; the configuration counts in the first run.
            (conv, sink)[i].run(
                condition=lava.RunSteps(num_steps=count),
                run_cfg=lava.Loihi2SimCfg(select_tag=net.tag),
            )
        return {"y": sink.data.get(), "a_buf": conv.a_buf.get(), "w": conv.weight.get()}
    finally:
        conv.stop()
