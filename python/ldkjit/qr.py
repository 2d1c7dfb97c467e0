"""QR codes of invoices and addresses, for a terminal and as PNG. Needs ``ldkjit[qr]``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segno import QRCode

# Two rows of modules in one line of text.
_HALVES = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}
_BORDER = 2
_BECH32 = ("ln", "bc1", "tb1", "bcrt1")
_LONGEST = 4_296  # letters and digits that the largest code holds


def terminal(text: str) -> str:
    """A code made of block characters, light on dark: print it as it is.

    Args:
        text: An invoice, address or link; those without upper case are written in it, which makes
            the code smaller.

    Raises:
        ValueError: It is empty, or too long for a code.
        ImportError: ``ldkjit[qr]`` is not installed.
    """
    rows = [[not dark for dark in row] for row in _matrix(text)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return "\n".join("".join(map(_HALVES.__getitem__, zip(*pair, strict=True))) for pair in pairs)


def png(text: str, *, scale: int = 8) -> bytes:
    """A code as a PNG image.

    Args:
        text: As for ``terminal``.
        scale: Pixels of each module, 1 to 100.

    Raises:
        ValueError: As for ``terminal``, or the scale is out of range.
        ImportError: ``ldkjit[qr]`` is not installed.
    """
    if not 1 <= scale <= 100:
        raise ValueError("scale: 1 to 100 pixels")
    image = io.BytesIO()
    _code(text).save(image, kind="png", scale=scale, border=4)
    return image.getvalue()


def _code(text: str) -> QRCode:
    import segno

    if not 0 < len(text) <= _LONGEST:
        raise ValueError(f"1 to {_LONGEST:,} characters fit into a code")
    # Bech32 may be written in upper case, which takes fewer bits.
    smaller = text.upper() if text.startswith(_BECH32) and text.islower() else text
    return segno.make_qr(smaller, error="l", boost_error=False)


def _matrix(text: str) -> list[list[bool]]:
    rows = _code(text).matrix_iter(border=_BORDER)
    return [[bool(module) for module in row] for row in rows]
