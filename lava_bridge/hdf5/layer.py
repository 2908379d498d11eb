"""A layer of a file in memory, which the lowering changes before it is written."""

from typing import Any

import numpy as np

__all__ = ["Layer"]


class Layer:
    """A layer of a file in memory, which a block writes itself into as into an HDF5 group.

    Attributes:
        attrs: The group's attributes.
    """

    def __init__(self, **datasets: Any) -> None:
        self.attrs: dict[str, Any] = {}
        self._written: dict[str, dict[str, Any]] = {}
        for name, data in datasets.items():
            self.create_dataset(name, data=data)

    def create_dataset(
        self, name: str, shape: Any = None, dtype: Any = None, data: Any = None
    ) -> Any:
        """As :meth:`h5py.Group.create_dataset`; what was there is replaced.

        Without ``data`` it gives an array to fill.
        """
        data = np.empty(shape, dtype) if data is None else data
        self._written[name] = {"shape": shape, "dtype": dtype, "data": data}
        return data

    def __contains__(self, name: str) -> bool:
        """Whether there is such a dataset, or a group of datasets."""
        return any(key == name or key.startswith(f"{name}/") for key in self._written)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self._written[name]["data"])

    def __setitem__(self, name: str, data: Any) -> None:
        self.create_dataset(name, data=data)

    def __delitem__(self, name: str) -> None:
        del self._written[name]

    def set_kind(self, kind: str) -> None:
        """Set the layer's type, in the ten bytes that lava-dl has for it."""
        self.create_dataset("type", (1,), "S10", [kind.encode("ascii")])

    @property
    def kind(self) -> str:
        return self["type"][0].decode("ascii")

    @property
    def neuron(self) -> str:
        """The neuron's type; empty without one."""
        return str(self["neuron/type"]) if "neuron" in self else ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``[C, *]`` of the output."""
        return tuple(int(size) for size in self["shape"])

    def weights(self, name: str = "weight") -> list[str]:
        """The datasets of a weight: one, or a real and an imaginary one."""
        parts = [f"{name}/real", f"{name}/imag"]
        return parts if parts[0] in self else [name]

    def write(self, group: Any) -> None:
        """Write all into an HDF5 group."""
        for name, written in self._written.items():
            group.create_dataset(name, **written)
        for name, value in self.attrs.items():
            group.attrs[name] = value
