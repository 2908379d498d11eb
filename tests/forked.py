"""Programs in processes of their own that need not import torch first.

A server has imported it, and this library, before it is forked for each: a start takes a tenth of a
new Python's. What is about imports, terminals, or settings of the environment has to start one.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "torch",
        "spikingjelly.activation_based.neuron",
        "spikingjelly.activation_based.layer",
        "lava_bridge.cli",
        "lava_bridge.slayer",
        "lava_bridge.verify",
        "lava_bridge.netx",
    ]
)


def lava_bridge(
    *arguments: str, cwd: Path, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """The command line with these arguments, in the folder ``cwd``."""
    return _run(_command_line, arguments, cwd, timeout)


def python(
    code: str, *arguments: str, cwd: Path, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """As ``python -c code arguments``, in the folder ``cwd``."""
    return _run(_code, (code, *arguments), cwd, timeout)


def _run(
    program: Callable[..., None], arguments: tuple[str, ...], cwd: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("out", "err")]
        process = _SERVER.Process(target=_child, args=(program, arguments, cwd, files))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        out, err = (file.read_text() for file in files)
    return subprocess.CompletedProcess(list(arguments), process.exitcode, out, err)


def _child(
    program: Callable[..., None], arguments: tuple[str, ...], cwd: Path, files: list[Path]
) -> None:
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    sys.path.insert(0, "")
    program(*arguments)


def _command_line(*arguments: str) -> None:
    from lava_bridge.cli import main

    sys.argv = ["lava-bridge", *arguments]
    main()


def _code(code: str, *arguments: str) -> None:
    sys.argv = ["-c", *arguments]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), main.__dict__)
