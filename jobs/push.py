"""`python jobs/push.py ...` is `cardamage push ...`, by the code of this clone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cardamage.cli import main

if __name__ == "__main__":
    main(["push", *sys.argv[1:]])
