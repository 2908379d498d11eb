"""The one family of exceptions that this library raises for bad input."""

__all__ = ["BridgeError", "ConversionError", "NetFileError"]


class BridgeError(ValueError):
    """Something given to lava_bridge can't be used; the message names the place and the way out."""


class ConversionError(BridgeError):
    """A net has a part that slayer, or SpikingJelly, can't represent."""


class NetFileError(BridgeError):
    """A ``.net`` file can't be read or written."""
