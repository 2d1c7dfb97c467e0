"""The optional fields at a message's end (BOLT 1), read strictly."""

from __future__ import annotations

_MARKS = {0xFD: 2, 0xFE: 4, 0xFF: 8}


def read(stream: bytes) -> dict[int, bytes]:
    """The fields by their types.

    Raises:
        ValueError: A number is longer than it need be, a type is not above the one before it, or
            a field goes on behind the end.
    """
    fields: dict[int, bytes] = {}
    last = -1
    while stream:
        type_, stream = _number(stream)
        size, stream = _number(stream)
        if type_ <= last or size > len(stream):
            raise ValueError(f"field {type_} of {size} bytes")
        fields[type_], stream = stream[:size], stream[size:]
        last = type_
    return fields


def write(type_: int, data: bytes) -> bytes:
    """A field whose type and size take one byte each."""
    return bytes([type_, len(data)]) + data


def _number(stream: bytes) -> tuple[int, bytes]:
    """A number of one byte, or of as many as its first byte says; and the rest."""
    if not stream:
        raise ValueError("nothing where a number should be")
    size = _MARKS.get(stream[0])
    if size is None:
        return stream[0], stream[1:]
    number = int.from_bytes(stream[1 : 1 + size], "big")
    least = 0xFD if size == 2 else 1 << 4 * size
    if len(stream) < 1 + size or number < least:
        raise ValueError("a number that is not written as short as can be")
    return number, stream[1 + size :]
