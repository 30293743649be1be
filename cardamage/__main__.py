"""``python -m cardamage COMMAND ...``."""

from cardamage.cli import main

if __name__ == "__main__":
    main()
