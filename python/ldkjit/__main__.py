"""``python -m ldkjit``: the command, where it is not on PATH."""

from .cli import app

if __name__ == "__main__":
    app(prog_name="ldkjit")
