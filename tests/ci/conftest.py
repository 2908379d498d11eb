"""What all tests of this folder share."""

import pytest

import lava_bridge.cli  # noqa: F401

from .nets import NETS


@pytest.fixture(scope="package", autouse=True)
def _imported(tmp_path_factory):
    """Import whatever a check imports: pytester forgets modules that a test in the test imports."""
    code = f"""{NETS}
lava_bridge.export_hdf5(BLOCKS, PATH)
lava_bridge.check_equivalence(FLOAT, OTHER, X).save_html(PATH.with_suffix(".html"))
lava_bridge.check_equivalence(TWIN, PATH, X, integers=True)
torch.save(NET.state_dict(), PATH)
torch.load(PATH, weights_only=True)
neuron.LIFNode(2.0, decay_input=False, step_mode="m")(X)
"""
    exec(code, {"PATH": tmp_path_factory.mktemp("imported") / "n.net"})
