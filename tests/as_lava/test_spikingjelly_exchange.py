"""SpikingJelly's own lava_exchange, dead without Lava, works on this library's slayer.

In a Python without Lava, on the SpikingJelly that is installed (`make test`: both lines). The net
is that of SpikingJelly's own example, lava_mnist.
"""

import json
from importlib.metadata import version

import pytest
import torch

import lava_bridge
from lava_bridge.slayer.block import cuba

# The example imports torchvision for MNIST alone. In its place: scikit-learn's digits, of 8x8
# pixels, enlarged to MNIST's 28x28. (A real torchvision must be of torch's own build.)
TORCHVISION = """
import sys
import types

import torch
from sklearn.datasets import load_digits

IMAGES, LABELS = map(torch.tensor, load_digits(return_X_y=True))
IMAGES = (IMAGES.float() / 16).view(-1, 1, 8, 8)
IMAGES = torch.nn.functional.interpolate(IMAGES, size=(28, 28), mode="bilinear")


class datasets:
    def MNIST(root, train, transform, download):
        part = slice(0, 64) if train else slice(1400, 1464)
        return torch.utils.data.TensorDataset(IMAGES[part], LABELS[part])


transforms = sys.modules["torchvision.transforms"] = types.ModuleType("transforms")
transforms.ToTensor = lambda: None
"""


@pytest.fixture
def torchvision(tmp_path):
    folder = tmp_path / "stand-in"
    folder.mkdir()
    (folder / "torchvision.py").write_text(TORCHVISION)
    return folder


def test_its_example_runs_unmodified(run, tmp_path, torchvision):
    small = ["-T=4", "-b=32", "-epochs=1", "-channels=2", "-device=cpu", "-out-dir=."]
    example = "spikingjelly.activation_based.examples.lava_mnist"
    done = run("-m", "lava_bridge.as_lava", "-m", example, *small, first=torchvision)
    assert done.returncode == 0, done.stderr
    assert "test acc[lava dl] =" in done.stdout
    kinds = [type(block) for block in lava_bridge.load_hdf5(tmp_path / "net_la.net")]
    assert kinds == [*[cuba.Conv] * 4, cuba.Flatten, cuba.Dense, cuba.Dense]


TRAIN = """
import json
import sys
from importlib.metadata import version

import lava_bridge

assert version("spikingjelly") == sys.argv[1]
lava_bridge.as_lava()

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import encoding, functional, lava_exchange, neuron
from spikingjelly.activation_based.examples.lava_mnist import MNISTNet, export_hdf5
from torchvision import IMAGES, LABELS

assert lava_exchange.slayer is lava_bridge.slayer
torch.manual_seed(0)
torch.set_num_threads(1)
encoder = encoding.PoissonEncoder(step_mode="m")


def spikes(index):
    return encoder(IMAGES[index].unsqueeze(0).repeat(6, 1, 1, 1, 1))


net = MNISTNet(channels=4)
functional.set_step_mode(net, "m")
with torch.no_grad():
    for weight in net.parameters():
        weight *= 3  # as they are drawn, the last layers are silent, and learn nothing for long
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
for _ in range(40):
    index = torch.randint(0, 1400, (32,))
    loss = F.cross_entropy(net(spikes(index)).mean(0), LABELS[index])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    functional.reset_net(net)

net.eval()
blocks = net.to_lava().eval()
layers, neurons_and_layers, fired, different = [], [], [], []
test = slice(1400, 1500)
with torch.no_grad():
    x = y = spikes(test)
    z = lava_exchange.TNX_to_NXT(x)
    for container, block in zip(net.conv_fc, blocks):
        y, z = container(y), block(z)
        layers.append(type(block).__name__)
        assert type(block) is getattr(lava_bridge.slayer.block.cuba, layers[-1])
        fired.append(int(y.sum()))
        different.append(int((y != lava_exchange.NXT_to_TNX(z)).sum()))
        neurons_and_layers.append(container.synapse)
        if container.neuron is not None:
            neurons_and_layers.append(neuron.IFNode())
    other_blocks = lava_exchange.to_lava_blocks(neurons_and_layers)
    w = lava_exchange.TNX_to_NXT(x)
    for block in other_blocks:
        w = block(w)
assert all(type(a) is type(b) for a, b in zip(blocks, other_blocks, strict=True))
accuracy = (z.mean(-1).argmax(1) == LABELS[test]).float().mean().item()
export_hdf5(blocks, "blocks.net")
export_hdf5(other_blocks, "other_blocks.net")
torch.save({"x": x, "z": z}, "spikes.pt")
print(json.dumps([layers, fired, different, int((z != w).sum()), accuracy]))
"""


def test_the_net_of_the_example_trains_and_its_blocks_and_files_give_its_spikes(
    run, tmp_path, torchvision
):
    done = run("-c", TRAIN, version("spikingjelly"), first=torchvision)
    assert done.returncode == 0, done.stderr
    layers, fired, different, other_way, accuracy = json.loads(done.stdout.splitlines()[-1])
    assert layers == ["Conv", "Conv", "Conv", "Conv", "Flatten", "Dense", "Dense"]
    assert accuracy > 0.5  # chance is 0.1
    assert all(fired)
    assert different == [0] * 7
    assert other_way == 0
    spikes = torch.load(tmp_path / "spikes.pt", weights_only=True)
    for name in ("blocks.net", "other_blocks.net"):
        z = lava_bridge.TNX_to_NXT(spikes["x"])
        with torch.no_grad():
            for block in lava_bridge.load_hdf5(tmp_path / name):
                z = block(z)
        assert torch.equal(z, spikes["z"]), name
