"""`python jobs/doubtful.py ...` is `cardamage doubtful ...`, by the code of this clone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cardamage.cli import main

if __name__ == "__main__":
    main(["doubtful", *sys.argv[1:]])
