"""Nets with delays, and with numbers of each neuron, for make_integer_nets.py."""

from net_layers import Case, Draw, conv, cuba, dense, flatten, input_layer

__all__ = ["delay_inputs", "delay_outputs", "delay_planes", "delay_scalar", "neuron_arrays"]


def delay_outputs(draw: Draw) -> Case:
    """Delays of each output neuron, 0 and 62 among them; above 62 all count as 62."""
    delay = draw.ints(9, 0, 12).astype(float)
    delay[:4] = (0, 62, 70, 3.9)
    layers = [dense(draw.even((9, 10), -60, 90), cuba(150), delay=delay)]
    layers.append(dense(draw.even((6, 9), -60, 90), cuba(150)))
    return Case(layers, (10,), steps=76)


def delay_inputs(draw: Draw) -> Case:
    """As many delays as inputs: each input's spikes come later."""
    layers = [
        dense(draw.even((9, 10), -60, 90), cuba(150), delay=draw.ints(10, 0, 6)),
        dense(
            draw.even((6, 9), -60, 90), cuba(150), delay=draw.ints(9, 0, 6), bias=draw.ints(6, 0, 9)
        ),
    ]
    return Case(layers, (10,))


def delay_scalar(draw: Draw) -> Case:
    """One delay for all."""
    layers = [
        dense(draw.even((7, 10), -60, 90), cuba(150), delay=3),
        dense(draw.even((6, 7), -60, 90), cuba(50), delay=62),
    ]
    return Case(layers, (10,), steps=76)


def neuron_arrays(draw: Draw) -> Case:
    """Biases, thresholds and decays of each neuron of a convolution, in Lava's order (W, H, C)."""
    each = (4, 3, 3)
    neuron = cuba(draw.ints(each, 200, 400), draw.ints(each, 0, 4097), draw.ints(each, 0, 1000))
    layers = [
        input_layer((2, 4, 5)),
        conv((2, 4, 5), draw.even((3, 2, 2, 2), -60, 90), neuron, bias=draw.ints(each, -200, 300)),
    ]
    # As large in each direction: nothing but the order says which is which.
    cube = (3, 3, 3)
    layers.append(
        conv(
            (3, 3, 4),
            draw.even((3, 3, 1, 2), -60, 90),
            cuba(draw.ints(cube, 100, 300)),
            bias=draw.ints(cube, -90, 200),
        )
    )
    return Case(layers, (2, 4, 5))


def delay_planes(draw: Draw) -> Case:
    """Delays of each input of a dense layer that is fed by planes."""
    layers = [
        input_layer((2, 4, 4)),
        conv((2, 4, 4), draw.even((3, 2, 2, 2), -60, 90), cuba(150)),
        flatten(),
        dense(draw.even((5, 27), -60, 90), cuba(150), delay=draw.ints(27, 0, 6)),
    ]
    return Case(layers, (2, 4, 4))
