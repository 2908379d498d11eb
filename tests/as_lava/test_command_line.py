"""``python -m lava_bridge.as_lava``: a script runs as under Python itself, with Lava's names."""

import subprocess
import sys
import zipfile
from contextlib import nullcontext

import pytest

COMMAND = ("-m", "lava_bridge.as_lava")

# Run by plain Python and by the command: the same output, errors and exit status.
SCRIPTS = {
    "what it sees": "import sys, neighbour\n"
    "print(__name__, __file__, sys.argv, sys.path[0], neighbour.__file__)\n"
    "print(sys.modules['__main__'].__dict__ is globals(), __spec__, __package__ in (None, ''))\n",
    "what its module is": "print(type(__builtins__), __annotations__, sorted(globals()))\n",
    "what it leaves behind": "import atexit, pickle, threading, time\n"
    "class Mine:\n    pass\n\n"
    "def later(where):\n    print(where, type(pickle.loads(pickle.dumps(Mine()))).__name__)\n\n"
    "def thread():\n    time.sleep(0.3)\n    later('thread')\n\n"
    "atexit.register(later, 'atexit')\nthreading.Thread(target=thread).start()\n"
    "raise SystemExit(4)\n",
    "status 3": "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)\n",
    "a message": "raise SystemExit('that was it')\n",
    "an error": "def f():\n    return 1 / 0\n\ntry:\n    f()\nfinally:\n    print('out')\n",
    "an error of an error": "try:\n    {}['x']\nexcept KeyError:\n    raise ValueError\n",
    "no Python": "print('never')\nx = = 1\n",
    "interrupted": "import signal\nsignal.raise_signal(signal.SIGINT)\n",
}
ARGUMENTS = ("--help", "-m", "--replace", "--", "", "-x=ü", "a b")


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_runs_as_under_python(run, tmp_path, script):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "neighbour.py").touch()
    path = folder / "script.py"
    path.write_text(script)
    plain, ours = run(path, *ARGUMENTS), run(*COMMAND, path, *ARGUMENTS)
    assert (ours.returncode, ours.stdout, ours.stderr) == (
        plain.returncode,
        plain.stdout,
        plain.stderr,
    )


def test_a_script_that_imports_lava_gets_ours_and_may_call_as_lava_itself(run, tmp_path):
    (tmp_path / "script.py").write_text(
        "import lava.lib.dl.slayer as slayer, lava_bridge, sys\n"
        "lava_bridge.as_lava()\n"
        "assert slayer is lava_bridge.slayer\n"
        "print(__file__, sys.argv)\n"
    )
    done = run(*COMMAND, "script.py", "a")
    assert done.returncode == 0, done.stderr
    # __file__ is absolute since Python 3.9, whatever was typed; the arguments are what was.
    assert done.stdout == f"{tmp_path / 'script.py'} ['script.py', 'a']\n"


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_or_a_zip_with_a_main_runs_as_under_python(run, tmp_path, packed):
    folder = tmp_path / "app"
    folder.mkdir()
    script = folder / "__main__.py"
    script.write_text(
        "import sys\nprint(__name__, __file__, sys.argv, sys.path[0], __spec__.name)\n"
    )
    if packed:
        with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
            archive.write(script, "__main__.py")
    name = "app.zip" if packed else "app"
    plain, ours = run(name, "a"), run(*COMMAND, name, "a")
    assert ours.stdout == plain.stdout != ""
    assert (ours.returncode, ours.stderr) == (0, "")


@pytest.mark.parametrize("name", ["no_such_module", "empty"])
def test_a_module_that_can_not_be_run_is_said_in_one_line(run, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "__init__.py").touch()
    done = run(*COMMAND, "-m", name)
    assert done.returncode == 1
    assert done.stderr == f"python -m lava_bridge.as_lava: {name} is no module that can be run\n"


def test_a_module_runs_as_with_python_m(run, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "part.py").write_text("value = 7")
    (package / "__main__.py").write_text(
        "import sys\nfrom .part import value\nimport lava.lib.dl.slayer as slayer\n"
        "print(__name__, __package__, sys.argv, value, slayer.__name__)\nsys.exit(value)\n"
    )
    done = run(*COMMAND, "-m", "package", *ARGUMENTS)
    assert done.returncode == 7, done.stderr
    argv = [str(package / "__main__.py"), *ARGUMENTS]
    assert done.stdout == f"__main__ package {argv} 7 lava_bridge.slayer\n"


def test_with_another_lava_it_refuses_unless_told_to_replace_it(run, other_lava, tmp_path):
    (tmp_path / "script.py").write_text("import lava.lib.dl.slayer as s\nprint(s.__name__)\n")
    refused = run(*COMMAND, "script.py", first=other_lava)
    assert refused.returncode == 2
    *_, line = refused.stderr.splitlines()
    assert line.startswith("Error: as_lava: the real Lava is installed")
    assert "--replace" in line
    replaced = run(*COMMAND, "--replace", "script.py", first=other_lava)
    assert (replaced.returncode, replaced.stdout) == (0, "lava_bridge.slayer\n"), replaced.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "python -m lava_bridge.as_lava train.py --epochs 10"),
        ([], 2, "Missing argument"),
        (["nothing.py"], 2, "nothing.py: there is no such file; give a script or -m MODULE"),
        (["--nothing", "x.py"], 2, "no such option"),
    ],
)
def test_what_it_says_of_itself(monkeypatch, capsys, arguments, status, words):
    from lava_bridge.as_lava import main

    monkeypatch.setattr(sys, "argv", ["as_lava", *arguments])
    with pytest.raises(SystemExit) if status else nullcontext() as left:
        main()
    assert status == (left.value.code if left else 0)
    out, err = capsys.readouterr()
    assert words.lower() in (out + err).lower()


def test_the_function_and_the_module_are_one():
    code = (
        "import lava_bridge, lava_bridge.as_lava\n"
        "from lava_bridge.as_lava import as_lava\n"
        "from lava_bridge import as_lava as again\n"
        "import inspect\n"
        "assert callable(again) and again is lava_bridge.as_lava and again.as_lava is as_lava\n"
        "assert str(inspect.signature(again)) == '(replace: bool = False) -> None'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
