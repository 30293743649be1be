"""Stages of SLURM's jobs as forks of one process, so that hundreds of small runs fit on two cores.

Importing torch takes seconds, and a run of a few steps starts an interpreter nine times. Here a
process imports what is not ours and waits at a socket. A program in place of ``apptainer`` hands
it each command, with its environment, folder and open files; a fork of the waiting process then
imports cardamage from the code that was submitted, and runs the module. Signals and the exit
status pass; when the program dies, so does its fork.
"""

import array
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from benchmarks.drill.starts import check_one_thread

_IMPORTED = ("torch", "torch._dynamo", "accelerate", "webdataset", "pydantic", "yaml", "rich")
_IMPORTED += ("matplotlib.figure", "jinja2", "psutil", "safetensors.torch", "pycocotools.mask")
_MOST = 1 << 20  # bytes of a command with its environment
_OURS = str(Path(__file__).parents[2])

CLIENT = """\
#!{python} -ISE
import array, json, os, signal, socket, sys
words = sys.argv[sys.argv.index("-m") + 1 :]
code = next(w for w in sys.argv if w.startswith("PYTHONPATH=")).partition("=")[2]
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, {most})
server.connect({address!r})
given = json.dumps([words, code, dict(os.environ), os.getcwd()]).encode()
files = array.array("i", [0, 1, 2])
server.sendmsg([given], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
pid = int(server.recv(64))
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, lambda number, _: os.kill(pid, number))
status = int(server.recv(64))
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def main() -> None:
    """Serve at a socket until this process is ended: ``python -m benchmarks.drill.forks FOLDER``.

    The folder gets ``bin/apptainer`` once commands are taken.
    """
    folder = Path(sys.argv[1])
    for name in _IMPORTED:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cardamage"]:
        del sys.modules[name]
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(str(folder / "forks"))
    server.listen(128)
    program = folder / "bin" / "apptainer"
    program.parent.mkdir()
    address = str(folder / "forks")
    program.write_text(CLIENT.format(python=sys.executable, most=_MOST, address=address))
    program.chmod(0o755)
    check_one_thread()
    _serve(server)


def _serve(server: socket.socket) -> None:
    """Fork for each connection, tell it of the end of its fork, end the fork with it."""
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, waker = socket.socketpair()
    waker.settimeout(0)
    woken.settimeout(0)
    signal.set_wakeup_fd(waker.fileno())
    waiting = selectors.DefaultSelector()
    waiting.register(server, selectors.EVENT_READ)
    waiting.register(woken, selectors.EVENT_READ)
    forks: dict[int, socket.socket] = {}
    while True:
        for key, _ in waiting.select():
            if key.fileobj is server:
                client, _ = server.accept()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MOST)
                pid = _fork(client)
                forks[pid] = client
                waiting.register(client, selectors.EVENT_READ, pid)
                client.send(str(pid).encode())
            elif key.fileobj is woken:
                with suppress(BlockingIOError):
                    woken.recv(4096)
            elif key.data in forks:  # its program is gone
                with suppress(ProcessLookupError):
                    os.killpg(key.data, signal.SIGKILL)
                waiting.unregister(key.fileobj)
        while forks:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            client = forks.pop(pid)
            with suppress(KeyError):
                waiting.unregister(client)
            with suppress(OSError):
                client.send(str(os.waitstatus_to_exitcode(status)).encode())
            client.close()


def _fork(client: socket.socket) -> int:
    sizes = socket.CMSG_LEN(3 * array.array("i").itemsize)
    given, passed, _, _ = client.recvmsg(_MOST, sizes)
    files = array.array("i")
    files.frombytes(passed[0][2])
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        return pid
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    (module, *arguments), code, environment, folder = json.loads(given)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:] = [code, *(path for path in sys.path if path not in ("", _OURS))]
    sys.argv = [module, *arguments]
    status = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:  # noqa: BLE001 - as an interpreter does
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
