"""A process that has imported what takes seconds, and forks a child for each program it is given.

Each line of standard input is JSON: ``{"start": [SCRIPT, ARGUMENT...], "folder", "output",
"environment"}`` is answered by the child's process id, ``{"wait": PID}`` by its exit status. A
child runs the program as its own main program, to the very end of its interpreter, in a session of
its own.
"""

import gc
import json
import os
import runpy
import signal
import sys

import accelerate  # noqa: F401 - imported here once for all children
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import numpy.random  # noqa: F401
import pycocotools.mask  # noqa: F401
import torch
import torch.distributed.tensor  # imported by the first step of an optimiser, with all of sympy

from cardamage.data.shards import (
    loader,  # noqa: F401
    pack,  # noqa: F401
)
from cardamage.evaluation import evaluate  # noqa: F401
from cardamage.launch.local import backend as local  # noqa: F401
from cardamage.launch.planning import (
    preflight,  # noqa: F401
    profiles,  # noqa: F401
)
from cardamage.predict import outputs as predictions  # noqa: F401
from cardamage.report import (
    comparison,  # noqa: F401
    run,  # noqa: F401
)
from cardamage.training import (
    failures,  # noqa: F401
    saving,  # noqa: F401
    state,  # noqa: F401
    stopping,  # noqa: F401
)

torch.set_num_threads(1)
gc.freeze()  # no child has to look through a million objects when it ends
print("ready", flush=True)
program = None
for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        _, status = os.waitpid(request["wait"], 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    if child := os.fork():
        print(child, flush=True)
        continue
    os.setsid()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    for name, target in (("stdin", 0), ("output", 1), ("output", 2)):
        path = request.get(name, os.devnull)
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, target)
        os.close(opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    program = request["start"]
    break
if program:
    sys.argv = program
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 - for the rest of the process
    runpy.run_path(program[0], run_name="__main__")
