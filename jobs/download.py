"""Download an export from Roboflow: `python jobs/download.py WORKSPACE/PROJECT/VERSION --out DIR`.

The key is read from the environment variable ROBOFLOW_API_KEY, and neither stored nor printed. The
last line on standard output is the .zip, which is a source as it is.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cardamage.console import start_logging
from cardamage.data.roboflow import API_URL, KEY_VARIABLE, download
from cardamage.errors import run_program


def main() -> None:
    """Parse the command line and download."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=f"The key: {KEY_VARIABLE} in the environment."
    )
    parser.add_argument("dataset", help="workspace/project/version, as in the dataset's address")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the .zip")
    parser.add_argument("--format", default="coco-segmentation", help="default: %(default)s")
    parser.add_argument("--api-url", default=API_URL, metavar="URL", help="default: %(default)s")
    arguments = parser.parse_args()
    start_logging()
    path = download(
        arguments.dataset,
        arguments.out,
        key=os.environ.get(KEY_VARIABLE, "").strip(),
        export_format=arguments.format,
        api_url=arguments.api_url,
    )
    print(path)


if __name__ == "__main__":
    run_program(main)
