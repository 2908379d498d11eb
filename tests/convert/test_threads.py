"""Conversions beside other threads: torch.fx patches torch for all of them while it traces."""

import threading

import torch
import torch.nn as nn
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import to_slayer


class Net(nn.Module):
    """It is traced, as it has a forward of its own."""

    def __init__(self, outputs):
        super().__init__()
        self.first, self.fire = layer.Linear(6, outputs), neuron.IFNode()
        functional.set_step_mode(self, "m")

    def forward(self, x):
        return self.fire(self.first(x))


def together(*loops):
    """Run them side by side; what they raised."""
    raised = []

    def run(loop):
        try:
            loop()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_other_threads_run_their_nets_meanwhile():
    other = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    stepped = nn.Sequential(nn.Linear(4, 4))
    x, done = torch.rand(2, 3, 4), threading.Event()
    expected = other(x), functional.seq_to_ann_forward(x, stepped)
    runs = 0

    def infer():
        nonlocal runs
        while not done.is_set():
            assert torch.equal(other(x), expected[0])
            assert torch.equal(functional.seq_to_ann_forward(x, stepped), expected[1])
            runs += 1

    def convert():
        try:
            for _ in range(60):
                to_slayer(Net(5).eval(), (6,))
        finally:
            done.set()

    assert together(infer, convert) == []
    assert runs > 60


def test_conversions_in_several_threads():
    def convert(outputs):
        for _ in range(20):
            blocks = to_slayer(Net(outputs).eval(), (6,))
            assert blocks[1].shape == (outputs,)

    call, get = nn.Module.__call__, nn.Module.__getattr__
    assert together(*(lambda outputs=n: convert(outputs) for n in (3, 4, 5, 6))) == []
    assert nn.Module.__call__ is call
    assert nn.Module.__getattr__ is get
