"""Handwritten digits, trained by several processes: a net of both frameworks under torch's DDP.

    torchrun --nproc-per-node 2 examples/ddp_digits.py

or without torchrun, by one process. Each rank takes its part of every batch; their gradients are
averaged, so that all hold the same weights. The net is quantised as on the chip while it learns:
a SpikingJelly convolution with its CubaLIFNode, and behind it blocks of slayer. Rank 0 reports, and
writes ``out/ddp_digits.pt``.
"""

import os
from pathlib import Path

import click
import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from spikingjelly.activation_based import functional, layer, surrogate
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lava_bridge import slayer
from lava_bridge.exchange import AsSpikingJelly, BlockContainer, CubaLIFNode, SumPool2d

STEPS = 12  # time steps that the net sees each digit for
LEAK = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}


def build() -> nn.Sequential:
    """Spikes ``[T, N, 1, 8, 8]`` to spikes ``[T, N, 10]``."""
    fire = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
    hidden = slayer.block.cuba.Dense(LEAK, 16 * 4 * 4, 64, weight_scale=2)
    digits = slayer.block.cuba.Dense(LEAK, 64, 10, weight_scale=2)
    net = nn.Sequential(
        BlockContainer(
            layer.Conv2d(1, 16, 3, padding=1, bias=False), CubaLIFNode(1.0, 0.1, **fire)
        ),
        BlockContainer(SumPool2d(2), CubaLIFNode(1.0, 0.1, v_threshold=1.0, **fire)),
        layer.Flatten(),
        AsSpikingJelly([hidden, digits]),
    )
    functional.set_step_mode(net, "m")
    return net


def spikes_of(images: torch.Tensor, seed: int) -> torch.Tensor:
    """Spikes ``[N, T, 1, 8, 8]``: a bright pixel spikes often. The same on every rank."""
    drawn = torch.rand(STEPS, *images.shape, generator=torch.Generator().manual_seed(seed))
    return (drawn < images / 16).float().transpose(0, 1)


def same_on_all_ranks(net: nn.Module) -> bool:
    """Whether every rank has the weights of rank 0, bit for bit."""
    if not dist.is_initialized():
        return True
    equal = torch.ones((), device=next(net.parameters()).device)
    for weight in net.state_dict().values():
        first = weight.clone()
        dist.broadcast(first, 0)
        equal *= torch.equal(first, weight)
    dist.all_reduce(equal, dist.ReduceOp.MIN)
    return bool(equal)


def save(net: nn.Module, path: Path) -> None:
    """Write the weights whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    torch.save(net.state_dict(), unfinished)
    os.replace(unfinished, path)


def train(net: nn.Module, data: TensorDataset, epochs: int, batch: int, most: int | None) -> None:
    """Run over the digits ``epochs`` times, or ``most`` optimizer steps, with all ranks."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    # For the length of this function: where DDP outlives the process group that it was made in, its
    # end waits for gloo's thread, which may be waiting for this one to let go of Python.
    trained = DistributedDataParallel(net) if ranks > 1 else net
    device = next(net.parameters()).device
    images, labels = data.tensors
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    taken = 0
    for epoch in range(epochs):
        # By number, so that each rank draws the same spikes for the same digit.
        spikes = TensorDataset(spikes_of(images, seed=epoch), labels)
        rank = dist.get_rank() if dist.is_initialized() else 0
        sampler = DistributedSampler(spikes, ranks, rank, shuffle=True, seed=0)
        sampler.set_epoch(epoch)
        for x, label in DataLoader(spikes, batch // ranks, sampler=sampler, drop_last=True):
            # Before the forward: no rank gets the state of another's digits from DDP's buffers.
            functional.reset_net(net)
            rate = trained(x.transpose(0, 1).to(device)).mean(0)
            loss = F.cross_entropy(rate * 8, label.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            taken += 1
            if taken == most:
                return


@torch.no_grad()
def accuracy(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    functional.reset_net(net)
    spikes = spikes_of(images, seed=1000).transpose(0, 1).to(next(net.parameters()).device)
    return (net(spikes).mean(0).argmax(1).cpu() == labels).float().mean().item()


@click.command()
@click.option("--epochs", default=10, show_default=True, help="Runs over the digits.")
@click.option("--batch", default=64, show_default=True, help="Digits in a step, of all ranks.")
@click.option("--steps", type=int, help="Stop after so many steps.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/ddp_digits.pt"))
def main(epochs: int, batch: int, steps: int | None, out: Path) -> None:
    """Train on scikit-learn's digits, with as many processes as torchrun has started."""
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if batch % ranks:
        raise click.UsageError(f"--batch {batch} can't be shared out among {ranks} ranks")
    torch.set_num_threads(1)  # the tensors are small: threads would only wait for each other
    torch.manual_seed(0)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else "cpu"
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images.reshape(-1, 1, 8, 8), labels, test_size=450, random_state=0)
    images, test_images, labels, test_labels = (torch.from_numpy(part) for part in parts)

    if ranks > 1:
        if cuda:
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if cuda else "gloo")
    net = build().to(device)
    train(net, TensorDataset(images, labels), epochs, batch, steps)
    if not same_on_all_ranks(net):
        raise click.ClickException("the ranks have come to different weights")
    if rank == 0:
        right = accuracy(net.eval(), test_images, test_labels)
        save(net, out)
        click.echo(f"{ranks} ranks with equal weights, {right:.1%} of 450 test digits right")
        click.echo(f"Written: {out}")
    if ranks > 1:
        dist.barrier()  # the others wait for rank 0's report
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
