"""``import lava.lib.dl.slayer`` without Lava: ``lava_bridge`` under Lava's names.

Called as ``lava_bridge.as_lava()``; ``python -m lava_bridge.as_lava script.py ARGS`` does it for a
script that stays as it is.
"""

import builtins
import pkgutil
import runpy
import sys
import threading
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from .errors import BridgeError

__all__ = ["as_lava"]

# Lava's packages and where they are here; one that is not here (yet) is not provided.
PACKAGES = {"lava.lib.dl.slayer": "lava_bridge.slayer"}
# Those of lava-nc belong together: its processes do not run in our net, nor ours in its.
RUNTIME = {
    "lava.proc.conv": "lava_bridge.proc.conv",
    "lava.proc.io": "lava_bridge.proc.io",
    "lava.magma.core.decorator": "lava_bridge.proc.model",
    "lava.magma.core.model.py.model": "lava_bridge.proc.model",
    "lava.magma.core.model.py.ports": "lava_bridge.proc.ports",
    "lava.magma.core.model.py.type": "lava_bridge.proc.model",
    "lava.magma.core.process.ports.ports": "lava_bridge.proc.ports",
    "lava.magma.core.process.process": "lava_bridge.proc.process",
    "lava.magma.core.process.variable": "lava_bridge.proc.process",
    "lava.magma.core.resources": "lava_bridge.proc.model",
    "lava.magma.core.run_conditions": "lava_bridge.proc.run",
    "lava.magma.core.run_configs": "lava_bridge.proc.run",
    "lava.magma.core.sync.protocols.loihi_protocol": "lava_bridge.proc.model",
}
PACKAGES |= RUNTIME

_installing = threading.Lock()


def as_lava(replace: bool = False) -> None:
    """Make ``import lava.lib.dl.slayer`` give ``lava_bridge.slayer``, and so for its submodules.

    Likewise ``lava.proc.conv`` and ``lava.proc.io`` give those of ``lava_bridge.proc``, and what a
    net of them needs of ``lava.magma``. They are the same modules, not copies; anything else of
    Lava is a ModuleNotFoundError. Call it before whatever imports Lava. A second call changes
    nothing.

    With ``replace`` it does so though the real Lava is there, whose other parts
    (``lava.lib.dl.netx``) can then still be imported. A real ``lava.proc`` and ``lava.magma`` stay
    whole: only slayer is ours then. What is already imported of Lava is dropped
    from ``sys.modules``, to be imported anew; whoever holds a part of it keeps the old one.

    Raises:
        BridgeError: If the real Lava is installed or imported, and ``replace`` is false; nothing is
            changed then.
    """
    with _installing:
        if any(isinstance(finder, _Ours) for finder in sys.meta_path):
            return
        real_runtime = _installed("lava.magma") or _installed("lava.proc")
        provided = [
            name
            for name, ours in PACKAGES.items()
            if _installed(ours) and not (real_runtime and name in RUNTIME)
        ]
        imported = [name for name in sys.modules if (name + ".").startswith("lava.")]
        real = imported[-1:] or [name for name in provided if _installed(name)]
        if real and not replace:
            raise BridgeError(
                f"as_lava: the real Lava is {'imported' if imported else 'installed'} ({real[0]}); "
                "use it, or take its place: as_lava(replace=True), --replace on the command line"
            )
        for name in imported:
            del sys.modules[name]
        sys.meta_path[:] = [_Ours(provided), *sys.meta_path, _Rest(provided)]


def _installed(name: str) -> bool:
    """Whether Python would find the module, without importing its parents as ``find_spec`` does."""
    first, *others = name.split(".")
    spec = find_spec(first)
    for part in others:
        inside = spec and spec.submodule_search_locations
        spec = PathFinder.find_spec(part, inside) if inside else None
    return spec is not None


class _Ours(MetaPathFinder, Loader):
    """The first of the finders: gives this library's modules.

    Python calls a finder under its one import lock: nothing is imported there, or two threads could
    wait for each other.
    """

    def __init__(self, provided: list[str]) -> None:
        self.provided = provided

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        for package in self.provided:
            if (name + ".").startswith(package + "."):
                ours = PACKAGES[package] + name.removeprefix(package)
                if ours in sys.modules or _installed(ours):
                    return ModuleSpec(name, self, origin=ours, is_package=True)
                raise ModuleNotFoundError(f"{name}: there is no {ours}", name=name)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """Import our module, and enter it and what is loaded below it under Lava's names.

        That comes before the new module, an empty one that ours replaces at once: other threads
        would take it for loaded.

        What is entered here needs no import, which would set an attribute of the parent:
        slayer.axon.delay, say, is the function and not the module. Modules of other packages, as
        the recurrences in slayer.neuron.dynamics are, can be imported for the same reason.
        """
        ours = spec.origin
        assert ours is not None  # find_spec put it there
        # The whole first: two threads that begin with parts of it could wait for each other.
        import_module(".".join(ours.split(".")[:2]))
        import_module(ours)
        for name, part in list(sys.modules.items()):
            if (name + ".").startswith(ours + "."):
                alias = spec.name + name.removeprefix(ours)
                sys.modules[alias] = part
                for child in getattr(part, "__all__", ()):
                    if isinstance(vars(part).get(child), ModuleType):
                        sys.modules.setdefault(f"{alias}.{child}", vars(part)[child])

    def exec_module(self, module: ModuleType) -> None:
        """Put our module in the place of the new one."""
        spec = module.__spec__
        assert spec is not None
        assert spec.origin is not None
        sys.modules[spec.name] = sys.modules[spec.origin]


class _Rest(MetaPathFinder):
    """The last of the finders: empty packages above ours, and an error for what is left."""

    def __init__(self, provided: list[str]) -> None:
        self.provided = provided

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not (name + ".").startswith("lava."):
            return None
        if not any(package.startswith(name + ".") for package in self.provided):
            # Were the error's name the module's, `from lava.lib.dl import netx` would swallow it.
            raise ModuleNotFoundError(
                f"{name}: not in lava_bridge, which provides {_listed(self.provided)}; for the "
                "rest of Lava install it and call as_lava(replace=True)",
                name="lava",
            )
        return ModuleSpec(name, None, is_package=True)


def _listed(provided: list[str]) -> str:
    """The packages in words, without all the modules of ``lava.magma``."""
    names = [name for name in provided if not name.startswith("lava.magma.")]
    if len(names) < len(provided):
        names.append("some of lava.magma")
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


class _Callable(ModuleType):
    """What ``python -m`` needs as a module is called as a function."""

    def __call__(self, replace: bool = False) -> None:
        as_lava(replace)


def main() -> None:
    """Run a script or a module after ``as_lava``, otherwise as Python itself would."""
    import click

    command = click.Command(
        "as_lava",
        params=[
            click.Option(["--replace"], is_flag=True, help="Do so though the real Lava is there."),
            click.Option(["-m", "module"], is_flag=True, help="Run a module, as python -m."),
            click.Argument(["script"], metavar="SCRIPT|MODULE"),
            click.Argument(["arguments"], metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED),
        ],
        help="Run a script, unmodified, with lava_bridge in the place of Lava.",
        epilog="\b\nExample:\n  python -m lava_bridge.as_lava train.py --epochs 10",
        # What follows the script is the script's.
        context_settings={"allow_interspersed_args": False},
    )
    try:
        options = command.make_context("python -m lava_bridge.as_lava", sys.argv[1:]).params
        script, module = options["script"], options["module"]
        if not module and not Path(script).exists():
            raise click.UsageError(f"{script}: there is no such file; give a script or -m MODULE")
        try:
            as_lava(options["replace"])
        except BridgeError as error:
            raise click.UsageError(str(error)) from error
    except click.exceptions.Exit:  # --help
        return
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    sys.argv[:] = [script, *options["arguments"]]
    sys.excepthook = _from_the_script_on
    code, names = _module(script) if module else _script(script)
    # Not by runpy: its module is gone when the script ends, but what the script leaves to its
    # threads and to atexit looks for its classes there.
    main = sys.modules["__main__"] = ModuleType("__main__")
    vars(main).update(names, __builtins__=builtins, __annotations__={}, __cached__=None)
    exec(code, vars(main))


def _module(name: str) -> tuple[CodeType, dict[str, Any]]:
    """The code of a module, or of a package's ``__main__``, and the names it runs with."""
    spec: Any = find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = find_spec(f"{name}.__main__")
    get_code = getattr(spec and spec.loader, "get_code", None)
    code = get_code(spec.name) if get_code else None
    if code is None:
        sys.exit(f"python -m lava_bridge.as_lava: {name} is no module that can be run")
    sys.argv[0] = str(spec.origin)
    names = {"__file__": spec.origin, "__loader__": spec.loader, "__spec__": spec}
    return code, {**names, "__package__": spec.parent}


def _script(script: str) -> tuple[CodeType, dict[str, Any]]:
    """The code of a file, or of the ``__main__`` in a folder or a zip, and the names as above."""
    path = str(Path(script).absolute())
    finder: Any = pkgutil.get_importer(path)
    if finder is not None:
        sys.path[0] = path
        spec = finder.find_spec("__main__")
        if spec is None:
            sys.exit(f"python -m lava_bridge.as_lava: there is no __main__.py in {script}")
        names = {"__file__": spec.origin, "__loader__": spec.loader, "__spec__": spec}
        return spec.loader.get_code("__main__"), {**names, "__package__": ""}
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        sys.path[0] = str(Path(script).resolve().parent)
    loader: Any = SourceFileLoader("__main__", path)
    if path.endswith(".pyc"):
        loader = SourcelessFileLoader("__main__", path)
        code = loader.get_code("__main__")
    else:  # get_code would leave a .pyc beside the script
        code = loader.source_to_code(loader.get_data(path), path)
    return code, {"__file__": path, "__loader__": loader}


def _from_the_script_on(kind: Any, error: Any, trace: Any) -> None:
    """Show an error without the frames that started the script."""
    hidden = (__file__, runpy.run_path.__code__.co_filename, "<frozen importlib")
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(hidden):
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


if __name__ == "__main__":
    from lava_bridge.as_lava import main as run  # the module that is imported, not this copy of it

    run()
else:
    sys.modules[__name__].__class__ = _Callable
