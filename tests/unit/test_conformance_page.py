"""The page of requirements and tests is that of the sources, and nothing is left unsaid on it."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
from conformance import page
from conformance.page import Requirement

JUNIT = """
<testsuites><testsuite>
<testcase name="test_J_01_good[a]"/><testcase name="test_J_01_good[b]"><failure/></testcase>
<testcase name="test_J_02_bad"><error/></testcase>
<testcase name="test_J_03_not"><skipped/></testcase>
<testcase name="test_J_04_good"/>
</testsuite></testsuites>
"""
CARGO = """
     Running tests/faults/main.rs (target/release/deps/faults-0123)
test failure_codes::test_J_62_gone ... ok
test test_J_19_fee ... FAILED
test slow ... ignored, takes long
test result: FAILED. 1 passed; 1 failed
"""


def test_the_page_is_that_of_the_sources() -> None:
    assert page.PAGE.read_text("utf-8") == page.page(), "make conformance writes it anew"


def test_every_id_that_a_test_carries_is_a_requirement() -> None:
    wanted = page.requirements()
    assert [each for each in page.tests() if not wanted.keys() >= set(each.ids)] == []


def test_every_requirement_has_a_test_or_says_why_not() -> None:
    wanted = page.requirements()
    having = page.by_id(wanted)
    silent = [id_ for id_ in wanted if not having[id_] and not wanted[id_].untested]
    assert silent == []


def test_tests_that_are_named_there_exist() -> None:
    texts = {page.called(path): path.read_text("utf-8") for path in page.sources()}
    named = [each for requirement in page.requirements().values() for each in requirement.also]
    named += [each for hazard in page.hazards() for each in (*hazard.lsp, *hazard.wallet)]
    complaints = (page.ROOT / "docs/complaints.md").read_text("utf-8")
    named += re.findall(r"`(\S+\.(?:py|rs)::\w+)`", complaints)
    for each in named:
        file, name = each.split("::")
        # Not only as a function: some are made by macros.
        assert re.search(rf"\b{name}\b", texts[file]), each


def test_tests_that_another_lsp_is_put_to_exist() -> None:
    them = page.theirs()
    named = {each.name for each in page.tests() if each.file.startswith("conformance/")}
    assert them.passes | them.failing <= named
    assert not them.passes & them.failing
    assert all(each.why for each in them.reasons.values())


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a": "conformance/test_a.py"}, "passes"),
        ({"a": "conformance/test_a.py", "b": "conformance/test_a.py"}, "fails: slow"),
        (
            {"c": "conformance/test_a.py", "b": "conformance/test_b.py"},
            "fails: slow<br>fails at times: shy",
        ),
        ({"c": "conformance/test_a.py"}, "fails at times: shy"),
        ({"d": "conformance/test_a.py"}, "—"),
        ({"a": "core/a.rs"}, "—"),
        ({}, "—"),
    ],
)
def test_what_another_lsp_makes_of_a_requirement(files: dict[str, str], said: str) -> None:
    slow = page.Reason("so", frozenset({"b"}), sometimes=False)
    shy = page.Reason("so", frozenset({"c"}), sometimes=True)
    them = page.Theirs(frozenset({"a"}), {"slow": slow, "shy": shy})
    assert (them.failing, them.luck) == ({"b", "c"}, {"c"})
    having = [page.Case(file, name) for name, file in files.items()]
    assert page.their_result(having, them) == said


def test_ids_have_no_gap_and_are_in_order() -> None:
    numbers: dict[str, list[int]] = defaultdict(list)
    for id_ in page.requirements():
        letter, number = id_.split("-")
        numbers[letter].append(int(number))
    assert numbers.keys() == page.SECTIONS.keys()
    assert all(each == list(range(1, len(each) + 1)) for each in numbers.values())


@pytest.mark.parametrize(
    ("name", "ids", "label"),
    [
        ("test_J_13_J_24_S_07_a_changed_field", ["J-13", "J-24", "S-07"], "a_changed_field"),
        ("test_B_07_J_53", ["B-7", "J-53"], ""),
        ("test_B_8_minimum", ["B-8"], "minimum"),
        ("test_vectors_of_J_20", [], "vectors_of_J_20"),
        ("gone", [], "gone"),
    ],
)
def test_a_name_carries_ids_at_its_front(name: str, ids: list[str], label: str) -> None:
    case = page.Case("f", name)
    assert (case.ids, case.label) == (ids, label)


def test_what_pytest_said() -> None:
    assert page.from_junit(JUNIT) == {
        "test_J_01_good": ["passed", "failed"],
        "test_J_02_bad": ["failed"],
        "test_J_03_not": ["skipped"],
        "test_J_04_good": ["passed"],
    }


def test_what_cargo_said() -> None:
    assert page.from_cargo(CARGO) == {
        "test_J_62_gone": ["passed"],
        "test_J_19_fee": ["failed"],
        "slow": ["skipped"],
    }


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (None, "tested<br>so<br>**Deviation:** other"),
        ({}, "not run<br>so<br>**Deviation:** other"),
        ({"test_J_01_a": ["skipped"]}, "skipped<br>so<br>**Deviation:** other"),
        (
            {"test_J_01_a": ["passed"], "b": ["skipped"]},
            "passed<br>so<br>**Deviation:** other",
        ),
        (
            {"test_J_01_a": ["passed", "failed"], "b": ["passed"]},
            "**failed**: f.py: `a`<br>so<br>**Deviation:** other",
        ),
    ],
)
def test_one_failure_outweighs_the_rest(seen: dict[str, list[str]] | None, said: str) -> None:
    requirement = Requirement("text", note="so", deviation="other")
    having = [page.Case("f.py", "test_J_01_a"), page.Case("g.rs", "b")]
    assert page.result(requirement, having, seen) == said


@pytest.mark.parametrize("untested", ["not implemented: LSPS9", "nobody dared"])
def test_without_a_test_the_reason_is_given(untested: str) -> None:
    said = page.result(Requirement("text", untested=untested), [], {})
    assert said == (untested if untested.startswith("not") else f"not tested: {untested}")
