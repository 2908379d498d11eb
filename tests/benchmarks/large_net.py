"""How long and how much memory spiking_vgg11_bn takes: converted, exported, read by netx.

It has 130 million weights. Run as a script; each line is a process of its own, since a peak of
memory never falls.

    python tests/benchmarks/large_net.py
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import types
import unittest.mock
import warnings
from pathlib import Path
from typing import Any

MODES = ("plain", "weights")
MIB = 1 << 20


def model() -> Any:
    """The net, its weights drawn, in evaluation."""
    import torch
    import torch.nn as nn
    from spikingjelly.activation_based import functional, layer, neuron  # noqa: F401

    # Its module wants torchvision for downloads, which has to fit torch's build.
    stand_in: Any = types.ModuleType("torchvision.models.utils")
    stand_in.load_state_dict_from_url = None
    names = ("torchvision", "torchvision.models", stand_in.__name__)
    with unittest.mock.patch.dict(sys.modules, dict.fromkeys(names, stand_in)):
        from spikingjelly.activation_based.model import spiking_vgg
    with torch.device("meta"):  # each weight is drawn once, below
        net = spiking_vgg.spiking_vgg11_bn(spiking_neuron=neuron.IFNode)
    net.to_empty(device="cpu")
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -0.02, 0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    functional.set_step_mode(net, "m")
    return net.eval()


def peak() -> float:
    """The largest memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(mode: str) -> None:
    """Convert and export once, and print what it took."""
    import torch

    import lava_bridge

    for room in ("convert", "export_hdf5"):  # loaded when first used
        getattr(lava_bridge, room)
    torch.set_num_threads(2)
    before = peak()
    net = model()
    weights = sum(p.numel() * p.element_size() for p in net.parameters()) / MIB
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blocks = lava_bridge.to_slayer(
            net, (3, 224, 224), calibrate=None if mode == "plain" else mode
        )
    converted = time.perf_counter()
    after = peak()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vgg11.net"
        lava_bridge.export_hdf5(blocks, path)
        exported = time.perf_counter()
        size = path.stat().st_size / MIB
        subprocess.run([sys.executable, __file__, "--read", str(path)], check=True)
    print(
        f"{mode:8} weights {weights:6.0f} MiB  convert {converted - start:5.2f} s  export "
        f"{exported - converted:5.2f} s  file {size:6.0f} MiB  peak {peak():6.0f} MiB, "
        f"{peak() / weights:.2f} times the weights ({before:.0f} MiB before the net, "
        f"{after:.0f} MiB converted)"
    )


def measure_reading(path: str) -> None:
    """Read a file as an integer run does, and print what it took."""
    import torch

    from lava_bridge import netx

    torch.set_num_threads(2)
    start = time.perf_counter()
    net = netx.Network(path)
    took = time.perf_counter() - start
    print(f"netx     read {took:5.2f} s  {len(net.layers)} layers  peak {peak():6.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="processes for each mode")
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        measure_reading(given.read)
        return
    if given.mode:
        measure(given.mode)
        return
    for _ in range(given.rounds):
        for mode in MODES:
            subprocess.run([sys.executable, __file__, "--mode", mode], check=True)


if __name__ == "__main__":
    main()
