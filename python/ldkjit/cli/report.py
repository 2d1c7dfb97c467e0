"""What the demo found: scenes, and in each what was expected beside what was so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..models import Stage


@dataclass
class Check:
    """One thing compared."""

    what: str
    expected: Any
    actual: Any

    @property
    def ok(self) -> bool:
        """Whether it is as expected, exactly."""
        return bool(self.expected == self.actual)


@dataclass
class Scene:
    """One payment, or a few, and all that was compared."""

    title: str
    paid_msat: int = 0
    opening_fee_msat: int = 0
    received_msat: int = 0
    milliseconds: float = 0.0
    checks: list[Check] = field(default_factory=list[Check])
    timelines: dict[str, list[Stage]] = field(default_factory=dict[str, list[Stage]])

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)


@dataclass
class Report:
    """The whole run."""

    scenes: list[Scene] = field(default_factory=list[Scene])

    @property
    def ok(self) -> bool:
        """Whether there were scenes and every one is right."""
        return bool(self.scenes) and all(scene.ok for scene in self.scenes)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {
            "ok": self.ok,
            "scenes": [
                {
                    "title": scene.title,
                    "ok": scene.ok,
                    "paid_msat": scene.paid_msat,
                    "opening_fee_msat": scene.opening_fee_msat,
                    "received_msat": scene.received_msat,
                    "milliseconds": round(scene.milliseconds, 3),
                    "checks": [
                        {
                            "what": check.what,
                            "expected": check.expected,
                            "actual": check.actual,
                            "ok": check.ok,
                        }
                        for check in scene.checks
                    ],
                    "timelines": {
                        who: [{"stage": stage.stage, "at_us": stage.at_us} for stage in stages]
                        for who, stages in scene.timelines.items()
                    },
                }
                for scene in self.scenes
            ],
        }
