"""QR codes: what is drawn is what was asked for."""

from __future__ import annotations

import struct

import pytest

from ldkjit import qr


def test_the_terminal_has_the_code_in_half_lines() -> None:
    lines = qr.terminal("lnbcrt1" + "q" * 60).splitlines()
    widths = {len(line) for line in lines}
    assert len(widths) == 1
    (width,) = widths
    # A square, two rows in a line, with a light border of two modules.
    assert len(lines) == (width + 1) // 2
    assert lines[0] == "█" * width
    assert all(line[:2] == line[-2:] == "██" for line in lines[:-1])
    # The upper left finder pattern: a dark frame of seven modules.
    assert lines[1].startswith("██ ▄▄▄▄▄ ")
    assert set("".join(lines)) == set("█▀▄ ")


def test_bech32_is_smaller_in_upper_case() -> None:
    assert qr.terminal("lnbcrt1" + "q" * 300) == qr.terminal("LNBCRT1" + "Q" * 300)
    # Fewer modules, not only fewer bytes.
    lines, more = (qr.terminal(hrp + "q" * 300).splitlines() for hrp in ("lnbcrt1", "xnbcrt1"))
    assert len(lines) < len(more)


def test_an_image() -> None:
    image = qr.png("satoshi@example.com", scale=3)
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", image[16:24])
    assert width == height
    assert width % 3 == 0


@pytest.mark.parametrize("text", ["", "x" * 4_297])
def test_what_does_not_fit(text: str) -> None:
    with pytest.raises(ValueError, match="characters"):
        qr.terminal(text)
    with pytest.raises(ValueError, match="characters"):
        qr.png(text)


@pytest.mark.parametrize("scale", [0, 101])
def test_a_scale_out_of_range(scale: int) -> None:
    with pytest.raises(ValueError, match="scale"):
        qr.png("x", scale=scale)
