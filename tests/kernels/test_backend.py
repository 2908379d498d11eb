"""Which backend runs, and what is said of those that can't."""

import subprocess
import sys
import warnings

import pytest
import torch

import lava_bridge
from lava_bridge import kernels, slayer
from lava_bridge.errors import BridgeError
from lava_bridge.kernels import backend as backend_module, native

PARAMS = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}


@pytest.fixture
def without_native(monkeypatch):
    monkeypatch.setattr(native, "_native", None)
    monkeypatch.setattr(native, "_reason", "No module named '_native'", raising=False)
    monkeypatch.setattr(backend_module, "_said", False)


def test_backends_says_what_there_is_and_what_is_missing():
    found = lava_bridge.backends()
    assert list(found) == ["torch", "native", "cupy"]
    for state in found.values():
        assert state.partition(":")[0] in ("ready", "missing")
        assert "\n" not in state
    assert found["torch"] == "ready"


def test_the_native_kernels_are_built_here():
    # Everything else in this folder would be skipped silently.
    assert native.missing() is None, native.missing()
    assert native._native.instruction_sets()[0] == "baseline"


def test_what_is_missing_says_how_to_get_it(without_native):
    state = lava_bridge.backends()["native"]
    assert state.startswith("missing: the CPU kernels are not built; install lava_bridge again")
    assert "C++ compiler" in state


def test_without_kernels_the_reference_runs_and_says_so_once(without_native):
    neuron, x = slayer.neuron.cuba.Neuron(**PARAMS), torch.rand(2, 3, 8)
    with pytest.warns(UserWarning, match="slower torch reference: the CPU kernels are not built"):
        first = neuron(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = neuron(x)
    with kernels.use_backend("torch"):
        assert torch.equal(neuron(x), first)
    assert torch.equal(first, second)


def test_a_backend_that_is_asked_for_and_missing_is_an_error(without_native):
    with pytest.raises(BridgeError, match="backend 'native' is missing: the CPU kernels"):
        kernels.use_backend("native")
    assert kernels.current_backend() == "auto"


def test_another_versions_kernels_are_not_called(monkeypatch):
    class Other:
        @staticmethod
        def call_size():
            return 1

    monkeypatch.setattr(native, "_native", Other)
    assert "another version" in native.missing()


@pytest.mark.parametrize("name", ["tpu", "", "Native"])
def test_backends_that_do_not_exist_are_refused(name):
    with pytest.raises(BridgeError, match="use_backend: expected one of auto, torch, native, cupy"):
        kernels.use_backend(name)


def test_a_backend_is_set_for_a_block_or_from_now_on():
    assert kernels.current_backend() == "auto"
    with lava_bridge.use_backend("torch"):
        assert kernels.current_backend() == "torch"
        with lava_bridge.use_backend("native"):
            assert kernels.current_backend() == "native"
        assert kernels.current_backend() == "torch"
    assert kernels.current_backend() == "auto"
    with pytest.raises(RuntimeError), lava_bridge.use_backend("torch"):
        raise RuntimeError
    assert kernels.current_backend() == "auto"
    setting = lava_bridge.use_backend("torch")
    assert kernels.current_backend() == "torch"
    with setting:
        pass
    assert kernels.current_backend() == "auto"


def test_blocks_of_threads_that_overlap_leave_what_was_before_them():
    first, second = lava_bridge.use_backend("torch"), lava_bridge.use_backend("native")
    with first:
        pass  # ends while the second, of another thread, goes on
    assert kernels.current_backend() == "native"
    with second:
        pass
    assert kernels.current_backend() == "auto"


def test_a_compiled_function_may_set_the_backend():
    neuron, x = slayer.neuron.cuba.Neuron(**PARAMS), torch.rand(2, 3, 8)
    neuron(x)

    def run(x):
        with lava_bridge.use_backend("torch"):
            return neuron(x)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), neuron(x))
    assert kernels.current_backend() == "auto"


def test_the_backend_of_another_device_is_an_error():
    neuron, x = slayer.neuron.cuba.Neuron(**PARAMS), torch.rand(2, 3, 8)
    assert kernels.chosen("auto", x.to("meta")) is None
    with pytest.raises(BridgeError, match="backend 'cupy': expected a tensor on cuda, found a"):
        kernels.chosen("cupy", x)
    with pytest.raises(BridgeError, match="backend 'native': expected a tensor on cpu"):
        kernels.chosen("native", x.to("meta"))
    with pytest.raises(BridgeError, match="backend: expected one of auto"):
        kernels.chosen("tpu", x)
    assert neuron(x).shape == x.shape


def test_dtypes_that_no_kernel_has_go_to_the_reference():
    x = torch.ones(2, 3, 8, dtype=torch.complex64)
    assert kernels.chosen("auto", x) is None
    with pytest.raises(BridgeError, match=r"found a tensor of torch\.complex64"):
        kernels.chosen("native", x)


@pytest.mark.parametrize(("value", "printed"), [("torch", "torch"), ("", "auto")])
def test_the_environment_sets_the_backend_to_begin_with(value, printed, monkeypatch):
    monkeypatch.setenv("LAVA_BRIDGE_BACKEND", value)
    code = "from lava_bridge import kernels; print(kernels.current_backend())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == printed, done.stderr


def test_a_wrong_environment_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("LAVA_BRIDGE_BACKEND", "gpu")
    code = "from lava_bridge import kernels"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (
        "LAVA_BRIDGE_BACKEND: expected one of auto, torch, native, cupy, found 'gpu'" in done.stderr
    )


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_a_node_has_a_backend_of_its_own(step_mode, monkeypatch):
    from lava_bridge.exchange import CubaLIFNode

    runs = []
    for name in ("torch", "native"):
        node = CubaLIFNode(0.3, 0.1, step_mode=step_mode, backend=name)
        torch.manual_seed(0)
        runs.append(node(torch.rand(4, 2, 3)))
    assert all(torch.equal(run, runs[0]) for run in runs)
    called = []
    launch = native.launch
    monkeypatch.setattr(native, "launch", lambda *call: (called.append(call[0]), launch(*call)))
    for setting, count in (("torch", 0), ("auto", 1)):
        with kernels.use_backend(setting):
            CubaLIFNode(0.3, 0.1, step_mode=step_mode)(torch.rand(4, 2, 3))
        assert len(called) == count  # "torch" follows what is set for the library
    node = CubaLIFNode(0.3, 0.1, step_mode=step_mode, backend="cupy")
    with pytest.raises(BridgeError, match="backend 'cupy': expected a tensor on cuda"):
        node(torch.rand(4, 2, 3))
