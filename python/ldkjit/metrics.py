"""What a node counts, and the text in which Prometheus reads it."""

from __future__ import annotations

from typing import Literal

from .models import Model


class Sample(Model):
    """A value of a metric. Of a histogram it is the number of observations."""

    labels: dict[str, str]
    """What tells it from the metric's other samples."""
    value: float
    """In the unit that the metric's name ends with, if it names one."""
    sum: float | None = None
    """Of a histogram: all observations together."""
    buckets: tuple[tuple[float, int], ...] | None = None
    """Of a histogram: how many observations are at most this."""


class Metric(Model):
    """Something counted since the start (``counter``), or as it is now (``gauge``)."""

    name: str
    """As Prometheus has it, e.g. with ``_total`` or a unit at its end."""
    kind: Literal["counter", "gauge", "histogram"]
    """``histogram``: a counter of observations, by their size."""
    help: str
    """What it counts, a sentence."""
    samples: tuple[Sample, ...]
    """Its values, by label."""


def exposition(metrics: list[Metric]) -> str:
    """The metrics in Prometheus' text format 0.0.4: serve it as ``text/plain; version=0.0.4``.

    Args:
        metrics: What ``Node.metrics`` gives.
    """
    lines: list[str] = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {_escaped(metric.help)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for sample in metric.samples:
            lines.extend(_sample(metric.name, sample))
    return "".join(f"{line}\n" for line in lines)


def _sample(name: str, sample: Sample) -> list[str]:
    if sample.buckets is None:
        return [f"{name}{_labels(sample.labels)} {_number(sample.value)}"]
    buckets = [(_number(most), n) for most, n in sample.buckets]
    buckets.append(("+Inf", int(sample.value)))
    plain = _labels(sample.labels)
    return [
        *(f"{name}_bucket{_labels({**sample.labels, 'le': most})} {n}" for most, n in buckets),
        f"{name}_sum{plain} {_number(sample.sum or 0)}",
        f"{name}_count{plain} {_number(sample.value)}",
    ]


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    told = (f'{name}="{_escaped(value, quote=True)}"' for name, value in labels.items())
    return "{" + ",".join(told) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text
