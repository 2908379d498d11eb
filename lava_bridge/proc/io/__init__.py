"""As ``lava.proc.io``: what feeds a net and what keeps its output."""

from . import sink, source

__all__ = ["sink", "source"]
