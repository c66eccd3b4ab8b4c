"""What a person sees while it works: one live line on a terminal, plain lines in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

_QUIET_SECONDS = 10.0  # in a log, an unchanged kind of news is repeated no more often than this


class Progress:
    """Stages with their seconds, and news about the current one."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.seconds: dict[str, float] = {}
        self._stage = ""
        self._began = 0.0
        self._live: Status | None = None
        self._printed_at = 0.0
        self._printed = ""

    @contextmanager
    def stage(self, name: str) -> Iterator["Progress"]:
        """Time what happens inside under `name`, and show that it happens."""
        self._stage, self._began, self._printed_at = name, time.monotonic(), 0.0
        self._open(name)
        failed = True
        try:
            yield self
            failed = False
        finally:
            self._close()
            took = self.seconds[name] = time.monotonic() - self._began
            mark, colour = ("failed", "red") if failed else ("done", "green")
            self.console.print(f"[{colour}]{mark:6}[/] {name} [dim]({took:.1f} s)[/]")

    def note(self, text: str) -> None:
        """News: replaces the live line, or is printed when it is new and not too soon."""
        if self._live:
            self._live.update(f"{self._stage}: {text}")
        elif text != self._printed and time.monotonic() - self._printed_at >= _QUIET_SECONDS:
            self._printed, self._printed_at = text, time.monotonic()
            self.console.print(f"       {self._stage}: {text}", markup=False)

    def say(self, text: str, style: str = "") -> None:
        """A line that stays."""
        self.console.print(text, style=style, markup=False)

    def _open(self, name: str) -> None:
        if self.console.is_terminal:
            self._live = self.console.status(name)
            self._live.start()
        else:
            self._printed_at = time.monotonic()
            self.console.print(f"begin  {name}", markup=False)

    def _close(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
