"""As ``lava.proc.conv``: a convolution as a process, its models, and its arithmetic."""

from . import models, process, utils

__all__ = ["models", "process", "utils"]
