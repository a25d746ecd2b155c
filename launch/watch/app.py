"""The watcher on a whole terminal, by textual. What has not changed is not drawn again, for the sake of slow lines."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from launch.runs.rundir import Run
from launch.status.model import State
from launch.watch import screen as screens
from launch.watch.screen import Screen

if TYPE_CHECKING:
    from textual.widgets import Input

TICK_SECONDS = 2.0
HELP = "q quit  up/down stage  l log  w why  c cancel the stage  ? this line"


class Watcher(App[int]):
    """Shows ``look()`` every two seconds. Its return value is an exit code: 1 where a stage has failed."""

    CSS = """
    #head { height: 1; text-style: bold; }
    #rows { height: auto; max-height: 60%; }
    #log { height: 1fr; border-top: solid $primary; }
    #sure { height: 3; }
    #foot { height: 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "quit"),
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("up,k", "move(-1)", "up"),
        Binding("down,j", "move(1)", "down"),
        Binding("l", "show('log')", "log"),
        Binding("w", "show('why')", "why"),
        Binding("c", "ask", "cancel"),
        Binding("question_mark", "help", "help"),
        Binding("escape", "forget", show=False),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, run: Run, look: Callable[[], Screen], blocks: str = screens.BLOCKS) -> None:
        super().__init__()
        self.animation_level = "none"
        self._watched, self._look, self._blocks = run, look, blocks
        self._selected = -1
        self._has_moved = False
        """Whether the user has chosen a stage; until then it is the one that runs."""
        self._shows = "log"
        self._said = ""
        self._is_looking = False
        self._drawn: dict[str, str] = {}
        self._screen: Screen | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="head", markup=False)
        yield VerticalScroll(Static(id="rows-text", markup=False), id="rows")
        yield VerticalScroll(Static(id="log-text", markup=False), id="log")
        yield Static(HELP, id="foot", markup=False)

    def on_mount(self) -> None:
        # Without this a SIGTERM or a closed terminal leaves the other screen on and the cursor hidden.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._loop_call())
        self._refresh_all()
        self.set_interval(TICK_SECONDS, self._refresh_all)

    def _loop_call(self) -> None:
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self.exit, 128 + signal.SIGTERM)

    def _refresh_all(self) -> None:
        if not self._is_looking:  # the queue may take its time to answer
            self._is_looking = True
            self.run_worker(self._fetch, thread=True)

    def _fetch(self) -> None:
        try:
            found = self._look()
        finally:
            self._is_looking = False
        self.call_from_thread(self._show, found)

    def _show(self, found: Screen) -> None:
        self._screen = found
        running = [n for n, row in enumerate(found.rows) if row.state is State.RUNNING]
        if self._selected < 0 or (running and not self._has_moved and self._selected not in running):
            self._selected = running[0] if running else 0
        now = time.time()
        width = max(20, self.size.width)
        self._draw("#head", screens.heading(found, now)[:width])
        self._draw("#rows-text", "\n".join(screens.lines(found, width, self._selected, self._blocks)))
        self._draw_lower()

    def _draw_lower(self) -> None:
        if self._screen is None:
            return
        stage = self._screen.rows[self._selected].stage
        if self._shows == "log":
            most = max(3, self.size.height - len(self._screen.rows) - 6)
            width = max(20, self.size.width)
            text = "\n".join([f"log of {stage}", *screens.log_lines(self._watched, stage, most, width)])
        else:
            text = self._said
        self._draw("#log-text", text)

    def _draw(self, where: str, text: str) -> None:
        before = self._drawn.get(where)
        if before != text:
            self._drawn[where] = text
            # Laying out anew costs more than drawing, and is needed only where the number of lines is another.
            layout = before is None or before.count("\n") != text.count("\n")
            self.query_one(where, Static).update(text, layout=layout)

    def action_leave(self) -> None:
        bad = self._screen is not None and any(row.state.is_bad for row in self._screen.rows)
        self.exit(1 if bad else 0)

    def action_move(self, by: int) -> None:
        if self._screen is not None:
            self._has_moved = True
            self._selected = min(len(self._screen.rows) - 1, max(0, self._selected + by))
            self._shows = "log"
            self._show(self._screen)

    def action_show(self, what: str) -> None:
        self._shows = what
        if what == "why" and self._screen is not None:
            self._said = self._overnight("why", self._watched.id, self._screen.rows[self._selected].stage)
        self._draw_lower()

    def action_help(self) -> None:
        self._draw("#foot", HELP)

    async def action_ask(self) -> None:
        from textual.widgets import Input  # few cancel, and all start

        if not self.query("#sure"):
            placeholder = "type the name of the stage to cancel it, Esc to leave it"
            await self.mount(Input(placeholder=placeholder, id="sure"), before="#foot")
        self.query_one("#sure").focus()

    def action_forget(self) -> None:
        self.query("#sure").remove()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        name = event.value.strip()
        self.action_forget()
        known = [] if self._screen is None else [row.stage for row in self._screen.rows]
        self._shows = "why"
        self._said = f"there is no stage {name!r}: nothing is cancelled"
        if name in known:
            self._said = self._overnight("cancel", self._watched.id, name)
        self._draw_lower()

    def _overnight(self, *words: str) -> str:
        """What a command of ours says."""
        command = [sys.executable, "-P", "-m", "launch.cli", *words, "--workspace", str(self._watched.workspace.root)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return screens.printable(str(error))
        return "\n".join(map(screens.printable, (done.stdout + done.stderr).splitlines()))
