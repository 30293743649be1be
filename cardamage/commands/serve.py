"""Serve a model by HTTP, with a page to drop a photo on.

    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/predict?format=overlay' -o overlay.jpg

Formats are json, png, overlay and coco: see docs/serve.md. It serves this machine alone unless
--host says otherwise; it knows no passwords and no encryption.
"""

import argparse
from pathlib import Path

from cardamage.commands.arguments import add_checkpoint, add_runs_dir
from cardamage.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run, by name or path, a checkpoint file, or a file that cardamage export wrote as "
        "ONNX",
    )
    add_checkpoint(parser)
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0: any")
    parser.add_argument(
        "--max-mb", type=float, default=25.0, metavar="MB", help="of a photo (%(default)g)"
    )
    parser.add_argument(
        "--max-megapixels", type=float, default=50.0, metavar="MP", help="of a photo (%(default)g)"
    )
    parser.add_argument(
        "--at-once", type=int, default=2, metavar="N", help="photos worked on (%(default)s)"
    )
    parser.add_argument(
        "--waiting",
        type=int,
        default=30,
        metavar="N",
        help="photos that wait; more are answered with 503 (%(default)s)",
    )
    add_runs_dir(parser)


def run(arguments: argparse.Namespace) -> None:
    from cardamage.errors import require_extra

    for package in ("starlette", "uvicorn"):
        require_extra(package, "serve")
    from cardamage.predict.chosen import choose_model
    from cardamage.serve.app import Limits, application
    from cardamage.serve.server import listen, serve, trusted_hosts

    limits = Limits(
        arguments.max_mb, arguments.max_megapixels, arguments.at_once, arguments.waiting
    )
    for option, value, least in (
        ("--max-mb", limits.megabytes, 0.001),
        ("--max-megapixels", limits.megapixels, 0.001),
        ("--at-once", limits.at_once, 1),
        ("--waiting", limits.waiting, 0),
    ):
        if not value >= least:
            raise ConfigError(f"{option} {value:g}: {least:g} at least")
    chosen = choose_model(arguments.run, arguments.checkpoint, arguments.runs_dir)
    with listen(arguments.host, arguments.port) as listening:
        hosts = trusted_hosts(arguments.host)
        name = Path(chosen.name).name  # folders of this machine are nobody's business
        app = application(chosen.model, name, limits, hosts=hosts)
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        address = f"http://{host}:{listening.getsockname()[1]}"
        serve(app, listening, limits, started=lambda: print(address, flush=True))
