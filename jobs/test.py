"""`python jobs/test.py ...` is `cardamage test ...`, by the code of this clone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cardamage.cli import main

if __name__ == "__main__":
    main(["test", *sys.argv[1:]])
