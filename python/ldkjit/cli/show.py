"""How the demo looks in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ..amounts import Msat
from .report import Check, Report, Scene


class Show:
    """Prints each step as it happens, and a table at the end.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def scene(self, title: str) -> None:
        """A new scene begins."""
        self._console.print(f"\n[bold]{title}[/]")

    def step(self, text: str) -> None:
        """Something was done."""
        self._console.print(f"  · {text}", highlight=False)

    def check(self, check: Check) -> None:
        """Something was compared."""
        if check.ok:
            self._console.print(f"  [green]✓[/] {check.what}: {check.actual}", highlight=False)
        else:
            self._console.print(
                f"  [red]✗ {check.what}: {check.actual}, expected {check.expected}[/]",
                highlight=False,
            )

    def timeline(self, scene: Scene) -> None:
        """Where the time of the scene's payment went, node by node."""
        for who, stages in scene.timelines.items():
            if not stages:
                continue
            table = Table(title=f"where the time went at the {who}", title_justify="left")
            table.add_column("stage")
            table.add_column("ms", justify="right")
            table.add_column("since the first", justify="right")
            first = last = stages[0].at_us
            for stage in stages:
                table.add_row(
                    stage.stage,
                    f"{(stage.at_us - last) / 1_000:.1f}",
                    f"{(stage.at_us - first) / 1_000:.1f}",
                )
                last = stage.at_us
            self._console.print(table)

    def table(self, report: Report) -> None:
        """All scenes at a glance."""
        table = Table(title="\nfive scenes", title_justify="left")
        for name in ("scene", "paid", "opening fee", "received", "ms", "checks"):
            table.add_column(name, justify="left" if name == "scene" else "right")
        for scene in report.scenes:
            good = sum(check.ok for check in scene.checks)
            table.add_row(
                scene.title,
                str(Msat(scene.paid_msat)),
                str(Msat(scene.opening_fee_msat)),
                str(Msat(scene.received_msat)),
                f"{scene.milliseconds:.0f}",
                f"[{'green' if scene.ok else 'red'}]{good}/{len(scene.checks)}[/]",
            )
        self._console.print(table)
        self._console.print(
            "[green]every balance is right to the millisatoshi[/]"
            if report.ok
            else "[red]there are differences[/]"
        )
