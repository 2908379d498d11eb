"""Spike events: to and from tensors and files, and drawn."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import as_array
from ..errors import BridgeError
from .utils.utils import pyplot

__all__ = ["Event", "encode_1d_spikes", "encode_2d_spikes", "encode_3d_spikes"]
__all__ += ["encode_np_spikes", "read_1d_spikes", "read_2d_spikes", "read_3d_spikes"]
__all__ += ["read_np_spikes", "tensor_to_event"]


class Event:
    """Spikes as arrays ``x, y, c, t, p`` with one value for each (else a BridgeError is raised).

    x, y and the channel c are integers, y None in one dimension (``dim``); t is the time in ms; p
    is the payload, None if the spikes are not ``graded``. The channels are shifted to begin with
    0: polarities of -1 and 1, or 1 and 2, can be given. Source: ``lava.lib.dl.slayer.io.Event``.
    """

    def __init__(
        self, x_event: Any, y_event: Any, c_event: Any, t_event: Any, payload: Any = None
    ) -> None:
        self.dim = 1 if y_event is None else 2
        self.graded = payload is not None
        self.x, self.c, self.t = _integers(x_event), _integers(c_event), as_array(t_event)
        self.y: Any = None if y_event is None else _integers(y_event)
        self.p: Any = None if payload is None else as_array(payload)
        shapes = [a.shape for a in (self.x, self.y, self.c, self.t, self.p) if a is not None]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1:
            raise BridgeError(f"Event: expected arrays of one length, found shapes {shapes}")
        if self.c.size:
            self.c = self.c - self.c.min()

    def to_tensor(self, sampling_time: float = 1, dim: tuple[int, ...] | None = None) -> np.ndarray:
        """Fill an array ``[C, X, T]`` or ``[C, Y, X, T]`` of shape ``dim``, or as large as needed.

        See :meth:`fill_tensor`. A BridgeError is raised for no events and no ``dim``.
        """
        if dim is None:
            if not self.t.size:
                raise BridgeError("Event.to_tensor: no events to take a shape from; give dim")
            places = (int(a.max()) + 1 for a in (self.c, self.y, self.x) if a is not None)
            dim = (*places, int(self.t.max() / sampling_time + 1.5))
        frame = np.zeros(dim if self.dim == 2 else (dim[0], 1, *dim[1:]))
        return self.fill_tensor(frame, sampling_time).reshape(dim)

    def fill_tensor(
        self,
        empty_tensor: Any,
        sampling_time: float = 1,
        random_shift: bool = False,
        binning_mode: str = "OR",
    ) -> Any:
        """Write the events into an array or tensor ``[C, Y, X, T]`` (Y is 1 in one dimension).

        Times are rounded to steps of ``sampling_time``; events outside are left out. A step holds
        ``1 / sampling_time``, with "SUM" once for each event, or the sum of the payloads. With
        ``random_shift`` a random T steps of a longer recording are taken, a shorter one is put
        at a random time. A BridgeError is raised for another shape or mode.
        """
        mode = "SUM" if self.graded else binning_mode.upper()
        if empty_tensor.ndim != 4 or mode not in ("OR", "SUM"):
            found = f"{tuple(empty_tensor.shape)}, {binning_mode!r}"
            raise BridgeError(f"fill_tensor: expected [C, Y, X, T], 'OR' or 'SUM', found {found}")
        t = np.round(self.t / sampling_time).astype(int)
        if random_shift and t.size:
            ends = t.min(), t.max() - empty_tensor.shape[-1] + 1
            t = t - np.random.randint(min(ends), max(ends) + 1)
        index = np.stack([self.c, 0 * self.x if self.y is None else self.y, self.x, t])
        inside = ((index >= 0) & (index < np.reshape(empty_tensor.shape, (4, 1)))).all(0)
        value = (np.full(t.shape, 1 / sampling_time) if self.p is None else self.p)[inside]
        target = torch.as_tensor(empty_tensor)  # an array's own memory
        where = tuple(torch.as_tensor(i, device=target.device) for i in index[:, inside])
        target.index_put_(where, torch.as_tensor(value).to(target), accumulate=mode == "SUM")
        return empty_tensor

    def show(
        self,
        fig: Any = None,
        frame_rate: float = 24,
        pre_compute_frames: bool = True,
        repeat: bool = False,
    ) -> None:
        """Play :meth:`anim` in a window."""
        _ = self._animation(fig, frame_rate, pre_compute_frames, repeat)
        pyplot().show()

    def anim(
        self,
        fig: Any = None,
        frame_rate: float = 24,
        pre_compute_frames: bool = True,
        repeat: bool = True,
    ) -> Any:
        """A matplotlib animation: a raster; in two dimensions pictures, channel 1, 2, 0 as RGB.

        ``fig`` is a figure or its number, ``frame_rate`` in frames for each second of the events.
        A BridgeError is raised without events, or without matplotlib.
        """
        animation = self._animation(fig, frame_rate, pre_compute_frames, repeat)
        pyplot().close(animation._fig)
        return animation

    def _animation(self, fig: Any, frame_rate: float, keep: bool, repeat: bool) -> Any:
        plt = pyplot()
        from matplotlib.animation import FuncAnimation

        if not self.t.size:
            raise BridgeError("Event.anim: there are no events to draw")
        fig = fig if hasattr(fig, "gca") else plt.figure(fig)
        span = 1e3 / frame_rate
        frames = range(int(self.t.min() // span), int(self.t.max() // span) + 1)
        draw = (self._raster if self.y is None else self._pictures)(fig.gca(), span, keep)
        return FuncAnimation(fig, draw, frames=frames, interval=span, repeat=repeat)

    def _pictures(self, axes: Any, span: float, keep: bool) -> Callable[[int], None]:
        shape = (self.y.max() + 1, self.x.max() + 1, 3)
        image = axes.imshow(np.zeros(shape))

        def picture(n: int) -> np.ndarray:
            now = (self.t >= n * span) & (self.t < (n + 1) * span) & (self.c < 3)
            pixels = np.zeros(shape)
            pixels[self.y[now], self.x[now], (self.c[now] + 2) % 3] = 1
            return pixels

        of_step = functools.cache(picture) if keep else picture
        return lambda n: image.set_data(of_step(n))

    def _raster(self, axes: Any, span: float, keep: bool) -> Callable[[int], None]:
        height, first, last = self.x.max() + 1, self.t.min(), self.t.max()
        share = np.ones(self.t.shape)
        if self.p is not None and np.ptp(self.p) > 0:
            share = (self.p - self.p.min()) / np.ptp(self.p)
        points, (line,) = axes.scatter([], []), axes.plot([], [], "C1")
        axes.axis((first - 0.1 * last, 1.1 * last, -0.1 * height, 1.1 * height))

        def draw(n: int) -> None:
            end = (n + 1) * span
            seen = self.t < end
            points.set_offsets(np.column_stack([self.t[seen], self.x[seen]]))
            points.set(sizes=50 * share[seen], alpha=share[seen])
            line.set_data([end + span] * 2, [0, height])

        return draw


def _integers(values: Any) -> np.ndarray:
    array = as_array(values)
    return array if np.issubdtype(array.dtype, np.integer) else array.astype(int)


def tensor_to_event(spike_tensor: Any, sampling_time: float = 1) -> Event:
    """The events of an array or tensor ``[C, X, T]`` or ``[C, Y, X, T]``, else a BridgeError.

    The inverse of :meth:`Event.to_tensor`; graded unless each value is ``1 / sampling_time``.
    Source: ``lava.lib.dl.slayer.io.tensor_to_event``. (There the channels are shifted to begin
    with 0, and the payloads multiplied by ``sampling_time``.)
    """
    spikes = as_array(spike_tensor.detach() if isinstance(spike_tensor, Tensor) else spike_tensor)
    if spikes.ndim not in (3, 4):
        found = spikes.shape
        raise BridgeError(f"tensor_to_event: expected [C, X, T] or [C, Y, X, T], found {found}")
    c, *yx, t = where = np.nonzero(spikes)
    payload = None if np.abs(spikes[where] * sampling_time - 1).sum() < 1e-6 else spikes[where]
    y = yx[0] if len(yx) == 2 else None
    event = Event(yx[-1], y, c, t * sampling_time, payload)
    event.c = c  # channel 0 is known
    return event


def _codec(**bits: int) -> tuple[Callable[[str], Event], Callable[[str, Event], None]]:
    """Reading and writing of events of these bits, big-endian, from the highest; t is in us."""
    size, dim = sum(bits.values()) // 8, 1 + ("y" in bits)

    def read(filename: str) -> Event:
        """Read a binary spike file; a BridgeError if it can't be read, or is truncated."""
        try:
            data = np.fromfile(filename, dtype=np.uint8)
        except OSError as error:
            raise BridgeError(f"{filename}: can't be read ({error}); check the path") from error
        if data.size % size:
            found = f"{data.size} bytes, no whole number of events of {size}"
            raise BridgeError(f"{filename}: {found}; it is truncated, or of another format")
        word = np.zeros(data.size // size, dtype=np.int64)
        for byte in data.reshape(-1, size).T:
            word = word << 8 | byte
        values = {}
        for name, width in reversed(bits.items()):
            values[name], word = word & ((1 << width) - 1), word >> width
        event = Event(values["x"], values.get("y"), values["c"], values["t"] / 1000)
        event.c = values["c"]  # channel 0 is known
        return event

    def encode(filename: str, td_event: Event) -> None:
        """Write a binary spike file; a BridgeError for what the bits can't hold, as payloads."""
        if td_event.dim != dim or td_event.graded:
            found = f"{td_event.dim}{' with payloads' * td_event.graded}"
            raise BridgeError(f"{filename}: is for binary events of dim {dim}, found dim {found}")
        word = np.zeros(td_event.t.shape, dtype=np.int64)
        for name, width in bits.items():
            values = td_event.t * 1000 if name == "t" else getattr(td_event, name)
            values = np.round(values).astype(np.int64)
            if values.size and not 0 <= values.min() <= values.max() < 1 << width:
                found = f"{name} of {values.min()} to {values.max()}"
                raise BridgeError(f"{filename}: {found}; its bits hold 0 to {(1 << width) - 1}")
            word = word << width | values
        word.astype(">i8").view(np.uint8).reshape(-1, 8)[:, -size:].tofile(filename)

    return read, encode


read_1d_spikes, encode_1d_spikes = _codec(x=16, c=1, t=23)
read_2d_spikes, encode_2d_spikes = _codec(x=8, y=8, c=1, t=23)
# Not in lava-dl: the format of slayerPytorch, before it.
read_3d_spikes, encode_3d_spikes = _codec(x=12, y=12, c=8, t=24)


def read_np_spikes(filename: str, fmt: str = "xypt", time_unit: float = 1e-3) -> Event:
    """Read an array ``[events, 3 or 4]``: x, y (if 4), channel, time in ``time_unit`` seconds.

    A BridgeError is raised if the file holds no such array, or for another ``fmt``.
    """
    try:
        table = np.asarray(np.load(filename))
    except Exception as error:  # NumPy lets through what parsing a damaged header raises
        # What NumPy does not know it takes for a pickle, and advises to allow that: never here.
        said = " ".join(str(error).split())
        reason = "it is no .npy file of numbers" if "pickle" in said else said
        raise BridgeError(f"{filename}: can't be read as a NumPy array ({reason})") from error
    columns = table.shape[1:] if np.issubdtype(table.dtype, np.number) else ()
    if fmt != "xypt" or columns not in ((3,), (4,)):
        found = f"{fmt!r} and {table.dtype} {table.shape}"
        raise BridgeError(f"{filename}: expected 'xypt' and 3 or 4 columns, found {found}")
    y = table[:, 1] if columns == (4,) else None
    return Event(table[:, 0], y, table[:, -2], table[:, -1] * time_unit * 1e3)


def encode_np_spikes(
    filename: str, td_event: Event, fmt: str = "xypt", time_unit: float = 1e-3
) -> None:
    """Write what :func:`read_np_spikes` reads; a BridgeError for payloads or another ``fmt``."""
    if fmt != "xypt" or td_event.graded:
        found = f"{fmt!r}{' and payloads' * td_event.graded}"
        raise BridgeError(f"{filename}: expected 'xypt' and binary events, found {found}")
    columns = (td_event.x, td_event.y, td_event.c, td_event.t / (time_unit * 1e3))
    np.save(filename, np.column_stack([c for c in columns if c is not None]).astype(float))
