"""Two processes on one machine, as ``torchrun --nproc-per-node 2`` starts them, and their work."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn as nn
from spikingjelly.activation_based import functional, layer, neuron
from torch.nn.parallel import DistributedDataParallel

from lava_bridge import BridgeError, check_equivalence, slayer
from lava_bridge.distributed import agreed
from lava_bridge.exchange import AsSlayer, AsSpikingJelly

ROOT = Path(__file__).resolve().parents[2]
RANKS = 2
CUBA = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}


def run_ranks(*arguments: str, cwd: Path) -> list[subprocess.CompletedProcess]:
    """Run Python with these arguments as both ranks, and wait."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(RANKS):
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": str(RANKS),
            "RANK": str(rank),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=cwd, env=environment, **pipes))
    done = []
    try:
        for process in started:
            out, error = process.communicate(timeout=120)
            done.append(subprocess.CompletedProcess(process.args, process.returncode, out, error))
    finally:
        for process in started:
            process.kill()
    return done


# Verify -----------------------------------------------------------------------------------------


def pair() -> tuple[nn.Sequential, nn.Sequential]:
    """Two nets that differ for input channel 0 only."""
    torch.manual_seed(0)
    nets = []
    for _ in range(2):
        nets.append(
            nn.Sequential(
                slayer.block.cuba.Dense(CUBA, 6, 8, weight_scale=4),
                slayer.block.cuba.Dense(CUBA, 8, 4, weight_scale=4),
            )
        )
    nets[1].load_state_dict(nets[0].state_dict())
    nets[1][0].synapse.weight.data[:, 0] += 1
    return nets[0], nets[1]


def samples(differing: tuple[int, ...], count: int) -> np.ndarray:
    """Spikes ``[T, N, C]``; those of the samples ``differing`` reach input channel 0."""
    x = (np.random.default_rng(0).random((12, count, 6)) < 0.5).astype(np.float32)
    for sample in set(range(count)) - set(differing):
        x[:, sample, 0] = 0
    return x


def nan_in(sample: int, count: int) -> np.ndarray:
    x = samples((), count)
    x[3, sample, 1] = np.nan
    return x


# Input, layout and options of checks that give a report, and of checks that raise.
CHECKS = {
    "uneven": (samples((), 5), {}),
    "mismatch in the second share": (samples((3, 4), 5), {}),
    "mismatch in both": (samples((0, 4), 5), {"batch_size": 2}),
    "one sample": (samples((0,), 1), {}),
    "NXT": (np.moveaxis(samples((3, 4), 5), 0, -1), {"layout": "NXT"}),
    "tensor": (torch.from_numpy(samples((1, 2), 3)), {}),
}
FAILURES = {
    "in the second share": (nan_in(4, 5), {}),
    "in the first share": (nan_in(0, 5), {}),
    "no samples": (np.zeros((12, 0, 6), dtype=np.float32), {}),
    "no layout": (samples((), 5), {"layout": "TXN"}),
    "two dimensions": (np.zeros((12, 6), dtype=np.float32), {}),
    "no numbers": ("spikes", {}),
}


def raised(call) -> tuple[str, str]:
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


# Training ---------------------------------------------------------------------------------------


def mixed() -> nn.Sequential:
    torch.manual_seed(0)
    dense = slayer.block.cuba.Dense(CUBA, 8, 4, weight_scale=6, delay=True)
    dense.infer_shape((8,))  # draws the delays: DistributedDataParallel needs the final shapes
    net = nn.Sequential(
        layer.Linear(6, 8),
        neuron.LIFNode(v_threshold=0.2),
        AsSpikingJelly([AsSlayer(nn.Sequential(layer.Linear(8, 8), neuron.IFNode())), dense]),
    )
    functional.set_step_mode(net, "m")
    return net


def gradients(net: nn.Module, share: slice) -> list[torch.Tensor]:
    """The gradients of the second of two batches ``[T, 4, 6]``, of all ranks if they met."""
    if dist.is_initialized():
        net = DistributedDataParallel(net)  # gone before the process group, or its end may hang
    x = torch.from_numpy(samples(tuple(range(8)), 8))
    for batch in x.split(4, dim=1):
        functional.reset_net(net)
        net.zero_grad()
        (4 * net(batch[:, share])).square().mean().backward()
    return [p.grad for p in net.parameters() if p.requires_grad]


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    a, b = pair()
    found = {"reports": {}, "errors": {}}
    for name, (x, options) in CHECKS.items():
        found["reports"][name] = check_equivalence(a, b, x, distributed=True, **options)
    for layout in ("TNX", "NXT"):
        mapped = np.load(f"{layout}.npy", mmap_mode="r")
        report = check_equivalence(a, b, mapped, layout, distributed=True)
        found["reports"][f"mapped {layout}"] = report
    for name, (x, options) in FAILURES.items():
        found["errors"][name] = raised(
            lambda x=x, options=options: check_equivalence(a, b, x, distributed=True, **options)
        )
    found["errors"]["a fault"] = raised(lambda: agreed(lambda: 1 // (1 - rank)))
    found["errors"]["both"] = raised(lambda: agreed(lambda: [BridgeError("x"), 0][rank].none))
    found["gradients"] = gradients(mixed(), slice(2 * rank, 2 * rank + 2))
    torch.save(found, f"found{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
