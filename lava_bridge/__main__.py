"""``python -m lava_bridge``: the command line, as ``torchrun -m`` wants it."""

from .cli import main

main(prog_name="lava-bridge")
