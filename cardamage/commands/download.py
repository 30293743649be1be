"""Download an export from Roboflow.

The key is read from the environment variable ROBOFLOW_API_KEY, and neither stored nor printed. The
last line on standard output is the .zip, which is a source as it is.
"""

import argparse
import os
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="workspace/project/version, as in the dataset's address")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the .zip")
    parser.add_argument("--format", default="coco-segmentation", help="default: %(default)s")
    parser.add_argument("--api-url", metavar="URL", help="default: Roboflow's own")


def run(arguments: argparse.Namespace) -> None:
    from cardamage.data.curation.download import API_URL, KEY_VARIABLE, download

    path = download(
        arguments.dataset,
        arguments.out,
        key=os.environ.get(KEY_VARIABLE, "").strip(),
        export_format=arguments.format,
        api_url=arguments.api_url or API_URL,
    )
    print(path)
