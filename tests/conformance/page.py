"""Writes docs/conformance.md: each requirement, the tests that carry its id, what came of them.

Of another LSP it says what ``tests/interop`` knows.

In ``tests``: ``python -m conformance.page``. With ``--junit`` and ``--cargo`` it reads what a run
of pytest and one of cargo said, and ``--out`` names where a page with results goes.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The second is the first before it came with Python.
tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/conformance.md"
REQUIREMENTS = Path(__file__).with_name("requirements.toml")
HAZARDS = Path(__file__).with_name("hazards.toml")
LDK_NODE = ROOT / "tests/interop/ldk_node_conformance.toml"

SECTIONS = {
    "J": "LSPS2: JIT channels (bLIP-52, bLIP-25)",
    "T": "LSPS0: transport (bLIP-50)",
    "W": "LSPS5: webhooks (bLIP-55)",
    "P": "LSPS1: channel orders (bLIP-51)",
    "S": "Failure scenarios",
    "B": "Where the texts are contradictory",
}
# The LSP of others that the suite is put to, as its column is called.
THEIRS = "ldk-node 0.7.1"
# What the page calls folders. The first that fits counts.
FOLDERS = {"rust/core/tests": "core", "rust/core/src": "core/src", "rust/node/src": "node"}

# "test" and ids, as in test_J_13_J_24_S_07_a_changed_field.
_CARRIES = re.compile(r"test((?:_[JTWPSB]_\d+)+)(?:_|$)")
_RUST_TEST = re.compile(
    r"#\[(?:tokio::)?test\b[^\]]*\]\s*(?:(?:#\[[^\]]*\]|//[^\n]*)\s*)*(?:async )?fn (\w+)"
)
_CARGO_RESULT = re.compile(r"^test (?:\S+::)?(\w+) \.\.\. (ok|FAILED|ignored)", re.MULTILINE)
_CARGO_WORDS = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}

_INTRODUCTION = """\
<!-- Made by tests/conformance/page.py from its .toml files and the tests: do not edit. -->
# Conformance

What bLIP-50, -51, -52 and -55 ask of an LSP and its clients, by ids of our own, and the tests that
show how ldkjit stands to it. A test is named after what it checks: `test_J_31_…`.

`tests/conformance` is a suite of its own. It talks BOLT 8 and nothing else, so that it can test any
LSP, and a failure names the requirement that it is about. Its client has a channel of its own, some
hundred lines of BOLT 2 and 3: it sees each part of a payment that is forwarded to it and what was
taken from that, claims it or fails it, hangs up where it likes, and looks whether the funding is
published. What only an engine, a clock or another node can show (parts by the dozen, payers and
chains that cheat, restarts, offers that run out) is tested in `rust/core/tests` and, between whole
nodes, in `tests/faults` and `tests/integration`.

```
pytest tests/conformance                                  # an LSP that it starts for itself
pytest tests/conformance --target NODE_ID@HOST:PORT       # any other
make conformance                                          # the first, and this page
```

An LSP that gives its menu for a token only is tested with `--target-token` too. Each run buys
dozens of channels that nobody will pay for. Skipped with `--target` are the tests of our wallet,
which is given LSPs of the suite's making, and those that need an LSP with the suite's settings,
such as a client that is denied, or payers with channels to it, as all payments do.

**Who** is who has to do it (delivery: the service that passes a webhook's notifications on),
**level** how the text says so: *fact* is a data format or something stated, *quality* is advice,
*ours* is a rule of our own. **Tests** are given without the ids in their names; `core/` is
`rust/core/tests`, `node/` is `rust/node/src`, all others are in `tests/`. **Result** is *tested*
if there is a test, otherwise why there is none. Deviations, and tests outside `conformance/`, are
those of ldkjit. `make conformance` writes a second page, with passed and failed as results.

**ldk-node 0.7.1** says how its LSP does in the tests in `conformance/` that the suite puts to it;
`tests/interop` sees to it that this stays true. Where it *fails* there is the name of the reason,
of which [the last table](#ldk-node-071) says more. A test that fails carries several ids, and may
fail for one of them. — is where it is asked nothing, as of all payments.
"""
_OF_HAZARDS = """
## Hazards

What implementations of today do to each other, and the tests that show that ours neither suffers
from it nor does it.

"""
_OF_THEIRS = """
## ldk-node 0.7.1

Why its LSP fails tests of the suite ([more about it](interop-ldk-node.md)).

"""


@dataclass(frozen=True)
class Requirement:
    """An entry of requirements.toml, where its fields are explained."""

    text: str
    who: str = ""
    level: str = ""
    note: str = ""
    deviation: str = ""
    untested: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hazard:
    """An entry of hazards.toml, where its fields are explained."""

    text: str
    lsp: tuple[str, ...]
    wallet: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Reason:
    """Why another LSP fails tests of the suite; sometimes it passes them, by luck."""

    why: str
    tests: frozenset[str]
    sometimes: bool


@dataclass(frozen=True)
class Theirs:
    """What the suite made of another LSP: the tests that it passes, and why it fails others."""

    passes: frozenset[str]
    reasons: Mapping[str, Reason]

    @property
    def failing(self) -> frozenset[str]:
        """The tests that it fails, always or at times."""
        return frozenset[str]().union(*(each.tests for each in self.reasons.values()))

    @property
    def luck(self) -> frozenset[str]:
        """Those of them that it passes at times."""
        lucky = (each.tests for each in self.reasons.values() if each.sometimes)
        return frozenset[str]().union(*lucky)


@dataclass(frozen=True, order=True)
class Case:
    """A test: its file as the page calls it, and its name."""

    file: str
    name: str

    @property
    def ids(self) -> list[str]:
        """The requirements it is named after."""
        carries = _CARRIES.match(self.name)
        found = re.findall(r"([JTWPSB])_(\d+)", carries[1]) if carries else []
        return [f"{letter}-{int(n)}" if letter == "B" else f"{letter}-{n}" for letter, n in found]

    @property
    def label(self) -> str:
        """Its name without ids."""
        return _CARRIES.sub("", self.name, count=1).removeprefix("test_")


Outcomes = Mapping[str, list[str]]


def requirements() -> dict[str, Requirement]:
    """Every requirement by its id."""
    entries = tomllib.loads(REQUIREMENTS.read_text(encoding="utf-8"))
    return {id_: Requirement(**entry) for id_, entry in entries.items()}


def hazards() -> list[Hazard]:
    """Every hazard, in the order of the page."""
    entries = tomllib.loads(HAZARDS.read_text(encoding="utf-8"))
    return [Hazard(**entry) for entry in entries["hazard"]]


def theirs() -> Theirs:
    """What the suite made of ldk-node."""
    entries: dict[str, Any] = tomllib.loads(LDK_NODE.read_text(encoding="utf-8"))
    passes = frozenset[str](entries.pop("passes"))
    reasons = {
        name: Reason(each["why"], frozenset(each["tests"]), each.get("sometimes", False))
        for name, each in entries.items()
    }
    return Theirs(passes, reasons)


def called(path: Path) -> str:
    """What the page calls a file."""
    name = path.relative_to(ROOT).as_posix()
    for folder, short in {**FOLDERS, "tests/": ""}.items():
        if name.startswith(folder):
            return (short + name.removeprefix(folder)).removeprefix("/")
    return name


def sources() -> Iterator[Path]:
    """Every file that may hold tests."""
    for folder in (*FOLDERS, "tests/faults"):
        yield from sorted((ROOT / folder).rglob("*.rs"))
    yield from sorted((ROOT / "tests").rglob("test_*.py"))


def names(path: Path) -> Iterator[str]:
    """The tests of a file; one with parameters is one."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".rs":
        yield from _RUST_TEST.findall(text)
        return
    for node in ast.walk(ast.parse(text)):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if function and node.name.startswith("test_"):
            yield node.name


def tests() -> list[Case]:
    """Every test there is, with ids or without."""
    return sorted({Case(called(path), name) for path in sources() for name in names(path)})


def by_id(wanted: Mapping[str, Requirement]) -> dict[str, list[Case]]:
    """The tests of each requirement: those that carry its id, then those that it names."""
    carry: dict[str, list[Case]] = defaultdict(list)
    for test in tests():
        for id_ in test.ids:
            carry[id_].append(test)
    named = {id_: [Case(*each.split("::")) for each in wanted[id_].also] for id_ in wanted}
    return {id_: list(dict.fromkeys([*carry[id_], *named[id_]])) for id_ in wanted}


def from_junit(text: str) -> dict[str, list[str]]:
    """What pytest said of each test, once for each set of parameters."""
    outcomes: dict[str, list[str]] = defaultdict(list)
    for case in ET.fromstring(text).iter("testcase"):  # noqa: S314 (our own run wrote it)
        inside = {each.tag for each in case}
        failed = inside & {"failure", "error"}
        outcome = "failed" if failed else "skipped" if "skipped" in inside else "passed"
        outcomes[case.attrib["name"].partition("[")[0]].append(outcome)
    return outcomes


def from_cargo(text: str) -> dict[str, list[str]]:
    """What cargo said of each test."""
    outcomes: dict[str, list[str]] = defaultdict(list)
    for name, word in _CARGO_RESULT.findall(text):
        outcomes[name].append(_CARGO_WORDS[word])
    return outcomes


def status(requirement: Requirement, having: list[Case], outcomes: Outcomes | None) -> str:
    """One word or two for how it stands."""
    if not having:
        lacking = requirement.untested.startswith("not implemented")
        return "not implemented" if lacking else "not tested"
    if outcomes is None:
        return "tested"
    seen = {outcome for test in having for outcome in outcomes.get(test.name, [])}
    return next((each for each in ("failed", "passed", "skipped") if each in seen), "not run")


def result(requirement: Requirement, having: list[Case], outcomes: Outcomes | None) -> str:
    """The last cell: how it stands, and what there is to say about that."""
    word = status(requirement, having, outcomes)
    if not having:
        word += f": {requirement.untested.removeprefix('not implemented: ')}"
    failed = [each for each in having if "failed" in (outcomes or {}).get(each.name, [])]
    if failed:
        word = f"**failed**: {_listed(failed)}"
    said = [word, requirement.note]
    if requirement.deviation:
        said.append(f"**Deviation:** {requirement.deviation}")
    return "<br>".join(filter(None, said))


def their_result(having: list[Case], them: Theirs) -> str:
    """How another LSP does in the tests of a requirement that are put to it."""
    asked = {each.name for each in having if each.file.startswith("conformance/")}
    asked &= them.passes | them.failing
    if not asked:
        return "—"
    reasons = {name: each for name, each in them.reasons.items() if asked & each.tests}
    said = [
        f"{word}: {', '.join(names)}"
        for sometimes, word in ((False, "fails"), (True, "fails at times"))
        if (names := [name for name, each in reasons.items() if each.sometimes == sometimes])
    ]
    return "<br>".join(said) or "passes"


def _listed(having: list[Case]) -> str:
    labels: dict[str, list[str]] = defaultdict(list)
    for test in having:
        labels[test.file].append(f"`{test.label}`")
    return "<br>".join(f"{file}: {', '.join(each)}" for file, each in labels.items())


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _table(
    entries: Mapping[str, Requirement],
    having: Mapping[str, list[Case]],
    outcomes: Outcomes | None,
    them: Theirs,
) -> str:
    # Scenarios and readings are asked of nobody.
    asked = any(each.who for each in entries.values())
    of_all = ["Requirement", "Tests", THEIRS, "Result"]
    titles = ["ID", *(["Who", "Level"] if asked else []), *of_all]
    rows = [_row(*titles), _row(*("---" for _ in titles))]
    for id_, each in entries.items():
        of = having[id_]
        who = [each.who, each.level] if asked else []
        said = their_result(of, them), result(each, of, outcomes)
        rows.append(_row(id_, *who, each.text, _listed(of), *said))
    return "".join(rows)


def _hazards() -> str:
    rows = [_row("Hazard", "Our LSP", "Our wallet", "Note"), _row(*("---" for _ in range(4)))]
    for each in hazards():
        sides = ([Case(*test.split("::")) for test in side] for side in (each.lsp, each.wallet))
        rows.append(_row(each.text, *map(_listed, sides), each.note))
    return _OF_HAZARDS + "".join(rows)


def _theirs(them: Theirs) -> str:
    rows = [_row("Reason", "What", "Tests"), _row(*("---" for _ in range(3)))]
    where = {each.name: each for each in tests() if each.file.startswith("conformance/")}
    for name, each in them.reasons.items():
        rows.append(_row(name, each.why, _listed(sorted(where[test] for test in each.tests))))
    return _OF_THEIRS + "".join(rows)


def page(outcomes: Outcomes | None = None) -> str:
    """The whole page, with results if there are any."""
    wanted = requirements()
    having = by_id(wanted)
    them = theirs()
    summary = [_row("", "IDs", "Of them", "Deviations"), _row("---", "---", "---", "---")]
    sections: list[str] = []
    for letter, title in SECTIONS.items():
        entries = {id_: each for id_, each in wanted.items() if id_[0] == letter}
        words = Counter(status(each, having[id_], outcomes) for id_, each in entries.items())
        counts = ", ".join(f"{n} {word}" for word, n in words.most_common())
        deviations = ", ".join(id_ for id_, each in entries.items() if each.deviation)
        summary.append(_row(title, str(len(entries)), counts, deviations))
        sections.append(f"\n## {title}\n\n{_table(entries, having, outcomes, them)}")
    return "".join([_INTRODUCTION, "\n", *summary, *sections, _hazards(), _theirs(them)])


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="conformance.page")
    parser.add_argument("--junit", type=Path, help="what pytest wrote with --junitxml")
    parser.add_argument("--cargo", type=Path, help="what cargo test printed")
    parser.add_argument("--out", type=Path, help="where a page with results goes")
    given = parser.parse_args()
    if (given.junit or given.cargo) and not given.out:
        parser.error("results need --out: the page in docs/ has none, so that it stays true")
    outcomes: dict[str, list[str]] | None = None
    if given.junit or given.cargo:
        outcomes = from_junit(given.junit.read_text("utf-8")) if given.junit else {}
        outcomes |= from_cargo(given.cargo.read_text("utf-8")) if given.cargo else {}
    out = given.out or PAGE
    out.write_text(page(outcomes), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
