"""Metrics as Prometheus reads them."""

from __future__ import annotations

from ldkjit import Metric
from ldkjit.metrics import Sample, exposition


def test_the_text_of_each_kind() -> None:
    metrics = [
        Metric.model_validate(each)
        for each in (
            {
                "name": "a_total",
                "kind": "counter",
                "help": "Back\\slash\nand line.",
                "samples": [
                    {"labels": {"why": 'a "b"\\\n'}, "value": 3},
                    {"labels": {}, "value": 0},
                ],
            },
            {
                "name": "b_seconds",
                "kind": "histogram",
                "help": "h",
                "samples": [
                    {"labels": {}, "value": 5, "sum": 2.5, "buckets": [[0.001, 2], [1.0, 4]]}
                ],
            },
            {"name": "c", "kind": "gauge", "help": "h", "samples": []},
        )
    ]
    assert metrics[1].samples[0] == Sample(
        labels={}, value=5, sum=2.5, buckets=((0.001, 2), (1.0, 4))
    )
    assert exposition(metrics) == (
        "# HELP a_total Back\\\\slash\\nand line.\n"
        "# TYPE a_total counter\n"
        'a_total{why="a \\"b\\"\\\\\\n"} 3\n'
        "a_total 0\n"
        "# HELP b_seconds h\n"
        "# TYPE b_seconds histogram\n"
        'b_seconds_bucket{le="0.001"} 2\n'
        'b_seconds_bucket{le="1"} 4\n'
        'b_seconds_bucket{le="+Inf"} 5\n'
        "b_seconds_sum 2.5\n"
        "b_seconds_count 5\n"
        "# HELP c h\n"
        "# TYPE c gauge\n"
    )
