"""``python -m tests.phone build [FOLDER]``: make the test phone that the tests find."""

import sys
from pathlib import Path

from tests.phone.build import build
from tests.phone.phone import FOLDER

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["build", *rest] if len(rest) <= 1:
            build(Path(rest[0]) if rest else FOLDER)
        case _:
            sys.exit("usage: python -m tests.phone build [FOLDER]")
