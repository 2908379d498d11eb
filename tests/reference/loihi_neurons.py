"""Records what Lava's own fixed_pt neurons do, also with numbers that no net would send them.

Run with Python 3.10, lava-nc 0.10.0: python loihi_neurons.py FILE.npz
"""

import sys

import numpy as np
from lava.proc.lif.models import PyLifModelBitAcc, PyLifResetModelBitAcc
from lava.proc.rf.models import PyRFModelFixed
from lava.proc.rf_iz.models import PyRF_IZModelFixed
from lava.proc.sdn.models import PyDeltaModelFixed, PySigmaDeltaModelFixed, PySigmaModelFixed
from lava.proc.sdn.process import ActivationMode

NEURONS, STEPS = 80, 9
HALF, LOWEST = 2**23, -(2**31)
STATES = [0, 1, -1, HALF - 1, HALF, -HALF, 1 - HALF, 2**31 - 1, LOWEST]
INPUTS = [0, 1, -1, 2**17 - 1, 2**17, -(2**17), 1 - 2**17, 2**25, 2**31 - 1, LOWEST]


class Port:
    """An input or output port without a channel: its dtype is the channel's, 32 bits."""

    def __init__(self):
        self.data = None

    def recv(self):
        return np.zeros(self.data.shape, np.int16) + self.data

    def send(self, data):
        self.data = np.zeros(data.shape, np.int32)
        self.data[:] = data


def drawn(rng, kind, shape):
    """Whole numbers of a kind; the magnitudes differ from neuron to neuron, some are extreme."""
    if kind == "decay":
        numbers, ends = rng.integers(0, 4097, shape), [0, 1, 4095, 4096]
    elif kind == "turn":
        numbers, ends = rng.integers(-4096, 4097, shape), [0, 1, 4095, 4096, -1]
    elif kind == "threshold":
        numbers, ends = rng.integers(0, 2**17, shape) * 64, [0, 64, HALF, 2**31 - 64, -64]
    else:
        ends = INPUTS if kind == "input" else STATES
        size = 2 ** rng.integers(
            3, 31 if kind == "state" else 26, (shape[0], *[1] * (len(shape) - 1))
        )
        numbers = rng.integers(-size, size, shape)
    at_the_ends = rng.random(shape) < 0.1
    return np.where(at_the_ends, rng.choice(ends, shape), numbers).astype(np.int32)


def neurons():
    """Each one's model, what that is told, its inputs, and its parameters' kinds, states last."""
    lif = {
        "du": "decay",
        "dv": "decay",
        "effective_bias": "state",
        "effective_vth": "threshold",
        "u": "state",
        "v": "state",
    }
    turn = {"sin_decay": "turn", "cos_decay": "turn", "vth": "threshold"}
    turn |= {"real": "state", "imag": "state"}
    delta = {"vth": "threshold", "act": "state", "residue": "state"}
    summing = {"sigma": "state"}
    both = {
        "bias": "state",
        "vth": "threshold",
        "sigma": "state",
        "act": "state",
        "residue": "state",
    }
    reset = {"reset_interval": 5, "reset_offset": 3}
    return {
        "lif": (PyLifModelBitAcc, {}, ["a_in"], lif),
        "lif_reset": (PyLifResetModelBitAcc, reset, ["a_in"], lif),
        "rf": (PyRFModelFixed, {}, ["a_real_in", "a_imag_in"], turn),
        "rf_iz": (PyRF_IZModelFixed, {}, ["a_real_in", "a_imag_in"], turn),
        "sigma": (PySigmaModelFixed, {}, ["a_in"], summing),
        "delta": (PyDeltaModelFixed, {}, ["a_in"], delta),
        "sigma_delta": (PySigmaDeltaModelFixed, {"act_mode": ActivationMode.RELU}, ["a_in"], both),
    }


def recorded(rng, model_class, told, inputs, kinds):
    model = model_class(told)
    model.state_exp, model.spike_exp, model.decay_bits = np.int32(6), np.int32(1), np.int32(12)
    model.cum_error, model.s_out = False, Port()
    found = {}
    for k, (name, kind) in enumerate(kinds.items()):
        number = drawn(rng, kind, (NEURONS,))
        found[f"parameter{k}"] = number.copy()
        setattr(model, name, number)
    if "du" in kinds:
        # Lava adds 1 to it; the bias and the threshold are shifted here already.
        model.du = model.du.astype(np.int64) - 1
        model.scale_bias = model.scale_threshold = lambda: None
    sequences = [drawn(rng, "input", (NEURONS, STEPS)) for _ in inputs]
    states = [name for name, kind in kinds.items() if kind == "state" and "bias" not in name]
    kept = {name: [] for name in ["s_out", *states]}
    for t in range(STEPS):
        model.time_step = t + 1
        for name, sequence in zip(inputs, sequences, strict=True):
            port = Port()
            port.data = sequence[:, t]
            setattr(model, name, port)
        model.run_spk()
        kept["s_out"].append(model.s_out.data)
        for name in states:
            kept[name].append(np.array(getattr(model, name)))
    for k, sequence in enumerate(sequences):
        found[f"input{k}"] = sequence
    for k, steps in enumerate(kept.values()):
        assert steps[0].dtype == np.int32
        found[f"output{k}"] = np.stack(steps, -1)
    return found


def main(path):
    found = {}
    for seed, (name, neuron) in enumerate(neurons().items()):
        arrays = recorded(np.random.default_rng(seed), *neuron)
        found |= {f"{name}/{key}": array for key, array in arrays.items()}
    np.savez_compressed(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
