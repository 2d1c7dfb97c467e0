"""What every store must show, ours and yours."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from ..errors import StoreError
from ..storage import Change, Delete, Loaded, MemoryStore, Put, Row, Store

_LARGE = 3_000_000
_BATCHES = 60
_PAGE = 3


class StoreCheckError(AssertionError):
    """A store does not do what ``ldkjit.storage.Store`` says; the text names what."""


def check_store(make: Callable[[], Store], *, seed: int = 1) -> None:
    """Run the suite that ldkjit's own stores pass, on a thread as a node does.

    It takes seconds, writes some megabytes and leaves them there. What it cannot show is that a
    commit survives a power cut: sync before ``commit`` returns.

    Args:
        make: Answers an object for the same content at each call, empty at the first; the one
            before it may not have been closed, as after a crash.
        seed: Of the random batches.

    Raises:
        StoreCheckError: The store does something else; the text says what.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            last = _examples(make)
            _random_batches(make, last, seed)
        except BaseException as error:
            failed.append(error)

    # A node's thread is not the one that made the store.
    thread = threading.Thread(target=run, name="check-store")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise StoreCheckError(what)


def _refuses(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except StoreError:
        return
    except Exception as error:
        raise StoreCheckError(f"{what}: raised {error!r}, not a StoreError") from error
    raise StoreCheckError(f"{what}: was not refused with a StoreError")


def _equal(found: object, expected: object, what: str) -> None:
    if found != expected:
        shown = [text[:500] for text in map(repr, (found, expected))]
        raise StoreCheckError(f"{what}: {shown[0]}, expected {shown[1]}")


def _live(loaded: Loaded) -> dict[tuple[str, str], bytes]:
    live = {(each.kind, each.key): each.value for each in loaded.live}
    _equal(len(live), len(loaded.live), "load: each thing that is live comes once")
    _must(
        all(type(value) is bytes for value in live.values()), "load: values are bytes, nothing else"
    )
    return live


def _same_as(store: Store, model: MemoryStore, histories: Sequence[str], when: str) -> None:
    for archived in (False, True):
        found, expected = store.load(archived=archived), model.load(archived=archived)
        _equal(found.seq, expected.seq, f"{when}: Loaded.seq")
        what = f"{when}: live, archived={archived}"
        _equal(_live(found), _live(expected), what)
        _equal(dict(found.last_row), dict(expected.last_row), f"{when}: Loaded.last_row")
    for kind in histories:
        after = 0
        while True:
            found_rows = list(store.rows(kind, after, _PAGE))
            _equal(found_rows, list(model.rows(kind, after, _PAGE)), f"{when}: rows({kind!r})")
            if not found_rows:
                break
            after = found_rows[-1].seq


def _examples(make: Callable[[], Store]) -> Store:
    store = make()
    model = MemoryStore()
    _same_as(store, model, (), "a store that make() answers first")

    def both(seq: int, *batch: Change) -> None:
        store.commit(seq, batch)
        model.commit(seq, batch)

    # In order; what comes later in a batch wins.
    both(1, Put("a", "x", b"1"), Put("a", "x", b"2"), Put("a", "y", b""), Delete("a", "nothing"))
    _equal(store.read("a", "x"), b"2", "two puts of a key in one batch: the later one")
    _equal(store.read("a", "y"), b"", "an empty value is a value")
    _equal(store.read("a", "nothing"), None, "read of what is not there")
    both(2, Put("b", "x", b"3"), Delete("a", "y"), Put("archive/p", "z", b"old"))
    _equal(store.read("a", "y"), None, "read of what was deleted")
    _equal(store.read("archive/p", "z"), b"old", "read of what is archived")
    both(3, Delete("b", "x"), Put("b", "x", b"4"))
    _equal(store.read("b", "x"), b"4", "deleted and put again in one batch")

    for wrong in (0, 3, 5):
        change = [Put("a", "x", b"wrong")]
        _refuses(f"commit {wrong} after 3", lambda w=wrong, c=change: store.commit(w, c))
    gap: list[Change] = [Put("a", "x", b"wrong"), Row("event", 2, "", b"")]
    _refuses("a first row with number 2", lambda: store.commit(4, gap))
    _equal(store.read("a", "x"), b"2", "a commit that is refused changes nothing")

    both(4, Row("event", 1, "k", b"e1"), Row("payment", 1, "p", b"p1"), Row("event", 2, "k", b"e2"))
    both(5, Row("event", 3, "l", b"e3"), Put("event", "live", b"now"), Put("event", "l", b"put"))
    again: list[Change] = [Row("event", 3, "", b"again")]
    _refuses("a row that is there", lambda: store.commit(6, again))
    for after, limit in ((0, 1), (1, 10), (3, 10), (2**63 - 1, 10), (0, 2**40)):
        expected = list(model.rows("event", after, limit))
        _equal(list(store.rows("event", after, limit)), expected, f"rows after {after}")
    _equal(list(store.rows("none", 0, 10)), [], "rows of a history that is not there")
    _equal(store.read("event", "k"), b"e2", "read of a row's key: the newest")
    _equal(store.read("event", "l"), b"put", "a put hides rows with its key")
    _same_as(store, model, ("event", "payment"), "in use")

    store = make()  # as after a crash: nobody closed the last one
    _same_as(store, model, ("event", "payment"), "after a crash")
    both(6, Put("a'\"%_\\", "\N{CRAB}/\n\t", bytes(range(256)) * (_LARGE // 256)))
    both(7)
    _same_as(store, model, ("event", "payment"), "large values, odd names, an empty batch")

    store.close()
    store.close()
    _refuses("commit after close", lambda: store.commit(8, []))
    _equal(store.load().seq, 7, "loaded again after close: the last commit")
    store.close()
    return store


def _random_batches(make: Callable[[], Store], last: Store, seed: int) -> None:
    """Many small changes against a model, with crashes between them."""
    rng = random.Random(seed)  # noqa: S311 (to be repeated, not to be secret)
    store, model = make(), MemoryStore()
    loaded = store.load(archived=True)
    model.commit(1, list(loaded.live))
    ends: dict[str, int] = dict(loaded.last_row)
    for kind, end in ends.items():
        model.commit(model.load().seq + 1, list(store.rows(kind, 0, end)))
    while model.load().seq < loaded.seq:
        model.commit(model.load().seq + 1, [])
    seq = loaded.seq
    for _ in range(_BATCHES):
        batch: list[Change] = []
        for _ in range(rng.randrange(12)):
            kind, key = rng.choice(("a", "b", "archive/c")), str(rng.randrange(5))
            what = rng.randrange(3)
            if what == 0:
                batch.append(Put(kind, key, rng.randbytes(rng.randrange(50))))
            elif what == 1:
                batch.append(Delete(kind, key))
            else:
                history = rng.choice(("event", "other"))
                ends[history] = ends.get(history, 0) + 1
                batch.append(Row(history, ends[history], key, rng.randbytes(5)))
        seq += 1
        store.commit(seq, batch)
        model.commit(seq, batch)
        if rng.random() < 0.1:
            if rng.random() < 0.5:
                store.close()
            store = make()
            _same_as(store, model, ("event", "other"), f"after batch {seq} and a new start")
        for kind in ("a", "b", "event", "other"):
            key = str(rng.randrange(5))
            _equal(store.read(kind, key), model.read(kind, key), f"read({kind!r}, {key!r})")
    _same_as(store, model, ("event", "payment", "other"), "in the end")
    store.close()
