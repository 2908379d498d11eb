"""How the models of a net take turns in a step."""

import threading
from collections.abc import Sequence
from contextvars import copy_context

from .model import PyLoihiProcessModel
from .ports import Channel

__all__ = ["Turns"]


class Turns:
    """Models that may wait for each other, each in a thread, of which one runs at a time.

    A model gives way where it receives what is not there yet. So it does not matter in a loop which
    model begins, nor how many loops meet in one: what it receives is the same, as in Lava.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._running = 0
        self._waiting: list[Channel] = []
        self._errors: list[BaseException] = []

    def step(self, models: Sequence[PyLoihiProcessModel]) -> None:
        """Run a step of each model; the first error is raised once all have ended."""
        self._running = len(models)
        threads = [
            threading.Thread(target=copy_context().run, args=(self._run, model)) for model in models
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def wait(self, channel: Channel) -> None:
        """Give way until the channel has a message, or no model can go on."""
        self._waiting.append(channel)
        self._turn.notify_all()
        self._turn.wait_for(lambda: channel.messages or self._stuck())
        self._waiting.remove(channel)

    def _stuck(self) -> bool:
        return len(self._waiting) == self._running and not any(
            channel.messages for channel in self._waiting
        )

    def _run(self, model: PyLoihiProcessModel) -> None:
        with self._turn:
            try:
                model.run_spk()
            except BaseException as error:  # raised by step
                self._errors.append(error)
            finally:
                self._running -= 1
                self._turn.notify_all()
