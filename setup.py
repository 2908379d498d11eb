"""Everything is in setup.cfg but for the CPU kernels, an extension that may be missing.

The kernels (cuda/) are compiled once for each instruction set; the one for this CPU is picked when
they run. Without a C++ compiler the installation goes on, and the library runs on plain torch.
"""

import os
import platform
import sysconfig
from concurrent.futures import ThreadPoolExecutor

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

# The name of each set in cuda/cpu_module.cpp, and what it asks of gcc and clang.
X86_SETS = {"baseline": [], "avx2": ["-march=x86-64-v3"], "avx512": ["-march=x86-64-v4"]}
OTHER_SETS = {"baseline": []}

FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",  # Python's own flags may ask for debug information: six times the size
    "-fvisibility=hidden",
    # Bit for bit the reference: no fused multiply-add, and integers that wrap.
    "-ffp-contract=off",
    "-fwrapv",
    # Nobody reads the floating-point exceptions or errno: loops may be reordered around them.
    "-fno-trapping-math",
    "-fno-math-errno",
]


class BuildKernels(build_ext):
    """Compiles the driver for every instruction set, then the extension around the objects."""

    def build_extension(self, ext: Extension) -> None:
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        ext.define_macros += [("LB_X86", None)] if x86 else []
        # E.g. for the sanitizers: LAVA_BRIDGE_CFLAGS="-fsanitize=address,undefined -g".
        more = os.environ.get("LAVA_BRIDGE_CFLAGS", "").split()
        ext.extra_compile_args = [*FLAGS, *more]
        ext.extra_link_args = more

        def compiled(named: tuple[str, list[str]]) -> list[str]:
            name, flags = named
            return self.compiler.compile(
                ["cuda/cpu_driver.cpp"],
                output_dir=os.path.join(self.build_temp, name),
                macros=[*ext.define_macros, ("LB_SET", name)],
                extra_postargs=[*ext.extra_compile_args, *flags],
                depends=ext.depends,
            )

        sets = (X86_SETS if x86 else OTHER_SETS).items()
        try:
            # Side by side, each in a compiler of its own.
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                objects = list(threads.map(compiled, sets))
        except Exception:  # short of memory or threads, maybe: one after the other then
            objects = [compiled(one) for one in sets]
        for found in objects:
            ext.extra_objects += found
        super().build_extension(ext)


kernels = Extension(
    "lava_bridge.kernels._native",
    ["cuda/cpu_module.cpp"],
    depends=[
        f"cuda/{name}" for name in sorted(os.listdir("cuda")) if name.endswith((".h", ".cpp"))
    ],
    language="c++",
    py_limited_api=True,
    optional=True,
)
# One wheel for all Pythons from 3.10 on; a free-threaded one has no limited API.
one_wheel = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"py_limited_api": "cp310"}

setup(
    packages=[*find_packages(include=["lava_bridge*"]), "lava_bridge.cuda"],
    package_dir={"lava_bridge.cuda": "cuda"},
    package_data={
        "lava_bridge": ["py.typed"],
        "lava_bridge.cuda": ["*.h", "*.cpp", "*.cu"],
        "lava_bridge.html_report": ["*.css"],
    },
    ext_modules=[kernels],
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": one_wheel},
)
