"""What the parts of slayer share."""

from .quantize import MODE as QUANTIZE_MODE
from .quantize import quantize, quantize_hook_fx

__all__ = ["QUANTIZE_MODE", "quantize", "quantize_hook_fx"]
