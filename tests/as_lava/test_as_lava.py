"""as_lava: Lava's names give this library's modules, or an error, and never a mixture."""

import json
import shutil

import pytest

from lava_bridge import slayer

ALL_MODULES = """
import importlib, json, pkgutil, sys
try:
    import lava
except ModuleNotFoundError as error:
    print(json.dumps(str(error)))
import lava_bridge
assert lava_bridge.as_lava() is None
lava_bridge.as_lava()
lava_bridge.as_lava(replace=True)
finders = [type(f).__name__ for f in sys.meta_path if "as_lava" in type(f).__module__]
import lava.lib.dl.slayer as slayer
assert slayer is lava_bridge.slayer
before = {m: dict(vars(sys.modules[m])) for m in list(sys.modules) if m.startswith(slayer.__name__)}
names = [m.name for m in pkgutil.walk_packages(slayer.__path__, "lava_bridge.slayer.")]
for name in names:
    under_lava = importlib.import_module(name.replace("lava_bridge", "lava.lib.dl"))
    assert under_lava is sys.modules[name], name
    assert under_lava.__spec__.name == name
for name, attributes in before.items():
    now = vars(sys.modules[name])
    assert all(now[key] is attributes[key] for key in attributes if not key.startswith("__")), name
print(json.dumps([len(names), finders]))
"""


def test_every_module_of_slayer_is_the_same_under_lavas_name(run):
    done = run("-c", ALL_MODULES)
    assert done.returncode == 0, done.stderr
    without_lava, (modules, finders) = map(json.loads, done.stdout.splitlines())
    assert without_lava == "No module named 'lava'"
    assert modules > 20
    assert len(finders) == 2, "calling it again has added finders"


# What a statement gives after as_lava(): a value, or an error's type and words in it.
STATEMENTS = {
    "import lava.lib.dl.slayer as found": "lava_bridge.slayer",
    "from lava.lib.dl import slayer as found": "lava_bridge.slayer",
    "import lava.lib.dl.slayer; found = lava.lib.dl.slayer": "lava_bridge.slayer",
    "import lava.lib.dl.slayer.neuron.cuba as found": "lava_bridge.slayer.neuron.cuba",
    "from lava.lib.dl.slayer.block.cuba import Dense as found": "Dense",
    "from lava.lib.dl.slayer.axon import delay as found": "delay",
    "from lava.lib.dl.slayer.axon.delay import Delay as found": "Delay",
    # A module of another package.
    "import lava.lib.dl.slayer.neuron.dynamics.resonator as found": "lava_bridge.ops.resonator",
    "from lava.lib.dl.slayer.neuron.dynamics.resonator import dynamics as found": "dynamics",
    "import lava as found": "lava",
    "import lava.proc as found": "lava.proc",
    "from lava.proc import conv as found": "lava_bridge.proc.conv",
    "from lava.proc import io as found": "lava_bridge.proc.io",
    "import lava.proc.conv.utils as found": "lava_bridge.proc.conv.utils",
    "from lava.proc.io.source import RingBuffer as found": "RingBuffer",
    "import lava.magma as found": "lava.magma",
    "import lava.magma.core.run_configs as found": "lava_bridge.proc.run",
    "from lava.magma.core.run_conditions import RunSteps as found": "RunSteps",
    "from lava.magma.core.process.process import AbstractProcess as found": "AbstractProcess",
    "from lava.magma.core.model.py.ports import PyInPort as found": "PyInPort",
    "from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol as found": (
        "LoihiProtocol"
    ),
    "from lava.magma.core.run_conditions import RunContinuous": "ImportError: cannot import name",
    "import lava.magma.compiler": "ModuleNotFoundError: lava.magma.compiler: not in lava_bridge",
    "import lava.magma.core.learning": "ModuleNotFoundError: lava.magma.core.learning: not in lava",
    "import lava.proc.lif": "ModuleNotFoundError: lava.proc.lif: not in lava_bridge, which",
    "import lava.proc.io.encoder": "ModuleNotFoundError: lava.proc.io.encoder: there is no lava_b",
    "import lava.lib.dl.netx": "ModuleNotFoundError: lava.lib.dl.netx: not in lava_bridge",
    "from lava.lib.dl import netx": "ModuleNotFoundError: lava.lib.dl.netx: not in lava_bridge",
    "import lava.lib.dl.slayer.nothing": "ModuleNotFoundError: lava.lib.dl.slayer.nothing: there",
    "from lava.lib.dl.slayer import nothing": "ImportError: cannot import name 'nothing'",
    "import lava.lib.dl.slayer.neuron.cuba.torch": "ModuleNotFoundError: No module named",
    "import lava.proc.later": "ModuleNotFoundError: lava.proc.later: not in lava_bridge, which",
    "import lavas": "ModuleNotFoundError: No module named 'lavas'",
}

EACH_STATEMENT = """
import json, sys
import lava_bridge.as_lava
lava_bridge.as_lava.PACKAGES["lava.proc.later"] = "lava_bridge.proc.later"
lava_bridge.as_lava()
results = {}
for statement in json.loads(sys.argv[1]):
    space = {}
    try:
        exec(statement, space)
        results[statement] = getattr(space.get("found"), "__name__", None)
    except Exception as error:
        results[statement] = f"{type(error).__name__}: {error}"
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results() -> dict[str, str]:
    """Filled by the first of the tests below: one Python runs all the statements."""
    return {}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_an_import_gives_ours_or_one_line_that_says_what_is_missing(run, results, statement):
    if not results:
        done = run("-c", EACH_STATEMENT, json.dumps(list(STATEMENTS)))
        assert done.returncode == 0, done.stderr
        results.update(json.loads(done.stdout))
    expected, found = STATEMENTS[statement], results[statement]
    if ": " not in expected:
        assert found == expected
    else:
        assert found.startswith(expected)
        assert "\n" not in found
        if "not in lava_bridge, which" in found:
            provided = found.partition("provides")[2].partition(";")[0].strip()
            assert (
                provided
                == "lava.lib.dl.slayer, lava.proc.conv, lava.proc.io and some of lava.magma"
            )


def test_classes_are_the_same_under_both_names(run):
    done = run(
        "-c",
        "import lava_bridge.as_lava; lava_bridge.as_lava()\n"
        "from lava.lib.dl.slayer.block import cuba\n"
        "params = {'threshold': 1, 'current_decay': 1, 'voltage_decay': 0}\n"
        "block = cuba.Dense(params, 2, 3)\n"
        "assert isinstance(block, lava_bridge.slayer.block.cuba.Dense)\n"
        "assert cuba.Dense.__module__ == 'lava_bridge.slayer.block.cuba'\n",
    )
    assert done.returncode == 0, done.stderr


REFUSED = """
import sys
{before}
import lava_bridge
state = list(sys.meta_path), sorted(sys.modules)
from lava_bridge import as_lava
try:
    as_lava()
except lava_bridge.BridgeError as error:
    print(error)
new = set(sys.modules) - set(state[1])
assert list(sys.meta_path) == state[0]
assert not [name for name in new if name.split(".")[0] == "lava"], new
import lava.lib.dl.slayer
assert lava.lib.dl.slayer.here == "other"
"""


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("", "the real Lava is installed (lava.lib.dl.slayer)"),
        ("import lava.lib.dl.slayer", "the real Lava is imported (lava.lib.dl.slayer)"),
        ("import lava.magma", "the real Lava is imported (lava.magma)"),
    ],
)
def test_where_there_is_another_lava_it_refuses_and_changes_nothing(run, other_lava, before, words):
    done = run("-c", REFUSED.format(before=before), first=other_lava)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert words in line
    assert "as_lava(replace=True)" in line


REPLACED = """
import sys
{before}
import lava_bridge
try:
    lava_bridge.as_lava()
except lava_bridge.BridgeError:
    pass
lava_bridge.as_lava(replace=True)
lava_bridge.as_lava()
assert not [name for name in sys.modules if name.split(".")[0] == "lava"]
import lava.lib.dl.slayer, lava.lib.dl.slayer.block, lava.magma
from lava.lib.dl import netx
assert netx.slayer is lava.lib.dl.slayer is lava_bridge.slayer
assert lava.lib.dl.slayer.block is lava_bridge.slayer.block
assert sys.argv[1] in netx.__file__ and sys.argv[1] in lava.magma.__file__
import lava.proc.conv.process
assert sys.argv[1] in lava.proc.conv.process.__file__
assert lava.proc.conv.process.magma is lava.magma
try:
    import lava.magma.core.run_configs
except ModuleNotFoundError as error:
    assert "'lava.magma.core'" in str(error) or "provides lava.lib.dl.slayer;" in str(error), error
try:
    import lava.lib.dl.slayer.nothing
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.parametrize("before", ["", "import lava.lib.dl.slayer.block, lava.lib.dl.netx"])
def test_replace_takes_the_place_of_slayer_and_leaves_the_rest(run, other_lava, before):
    done = run("-c", REPLACED.format(before=before), other_lava, first=other_lava)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "lava.lib.dl.slayer.nothing: there is no lava_bridge.slayer.nothing\n"


def test_replace_provides_the_processes_where_lava_has_slayer_alone(run, other_lava):
    """As lava-dl is installed without lava-nc."""
    for part in ("magma", "proc"):
        shutil.rmtree(other_lava / "lava" / part)
    done = run(
        "-c",
        "import lava_bridge; lava_bridge.as_lava(replace=True)\n"
        "import lava.lib.dl.netx, lava.proc.conv.process, lava_bridge.proc\n"
        "from lava.magma.core.process.process import AbstractProcess\n"
        "assert AbstractProcess is lava_bridge.proc.AbstractProcess\n"
        "assert lava.proc.conv is lava_bridge.proc.conv\n",
        first=other_lava,
    )
    assert done.returncode == 0, done.stderr


def test_beside_a_real_lava_nc_alone_slayer_is_provided_and_the_rest_is_its_own(run, other_lava):
    shutil.rmtree(other_lava / "lava" / "lib")
    done = run(
        "-c",
        "import lava_bridge; lava_bridge.as_lava()\n"
        "import lava.lib.dl.slayer, lava.proc.conv.process, sys\n"
        "assert lava.lib.dl.slayer is lava_bridge.slayer\n"
        "assert sys.argv[1] in lava.proc.conv.process.__file__\n",
        other_lava,
        first=other_lava,
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_called_lava_is_no_lava(run, tmp_path):
    (tmp_path / "lava" / "notes").mkdir(parents=True)
    done = run(
        "-c",
        "import lava_bridge; lava_bridge.as_lava()\n"
        "import lava.lib.dl.slayer, lava.notes\n"
        "assert lava.lib.dl.slayer is lava_bridge.slayer\n",
    )
    assert done.returncode == 0, done.stderr


def test_in_a_process_with_the_real_lava_it_refuses(lava):
    import lava_bridge

    assert lava.__name__ == "lava.lib.dl.slayer"
    with pytest.raises(lava_bridge.BridgeError, match="the real Lava is imported"):
        lava_bridge.as_lava()
    assert slayer is not lava


THREADS = """
import sys, threading
import lava_bridge
found, ready = [], threading.Barrier(24)

def begin():
    ready.wait()
    lava_bridge.as_lava()
    import lava.lib.dl.slayer.block.cuba as cuba
    found.append(cuba)

threads = [threading.Thread(target=begin, daemon=True) for _ in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
    assert not thread.is_alive(), "it waits for ever"
finders = [f for f in sys.meta_path if "as_lava" in type(f).__module__]
print(len(found), len(set(map(id, found))), len(finders))
sys.stdout.flush()
"""


def test_many_threads_at_once_find_the_same_modules(run):
    done = run("-c", THREADS)
    assert done.stdout.split() == ["24", "1", "2"], done.stderr


def test_threads_may_be_the_first_to_import_the_parts(run):
    done = run(
        "-c",
        "import importlib, random, sys, threading, lava_bridge\n"
        "lava_bridge.as_lava()\n"
        "names = ['lava.lib.dl.slayer', 'lava.lib.dl.slayer.block.cuba', 'lava.proc.io.sink',\n"
        "         'lava.lib.dl.slayer.neuron.dynamics.resonator', 'lava.proc.conv.process',\n"
        "         'lava.magma.core.run_configs', 'lava.lib.dl.slayer.axon.delay'] * 3\n"
        "random.Random(0).shuffle(names)\n"
        "ended = []\n"
        "def load(name):\n"
        "    ended.append(importlib.import_module(name))\n"
        "threads = [threading.Thread(target=load, args=(name,), daemon=True) for name in names]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join(60)\n"
        "assert len(ended) == len(names)\n"
        "from lava.lib.dl.slayer import axon\n"
        "assert axon is lava_bridge.slayer.axon and callable(axon.delay)\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
