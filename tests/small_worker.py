"""A process tree like a campaign's, without pipes. Run as ``python small_worker.py supervise|work NAME LIMIT``.

`work` leads a session, starts a warden, and runs a misbehaving backend in a runner; `supervise` starts such a worker
and waits for it. Both print what became of the runner, and stay.
"""

import os
import subprocess
import sys
import time

from small_cases import add_case

from qfuzz.backends.discovery import load_backend
from qfuzz.campaign.processes import adopt_orphans, die_with_parent, start_warden
from qfuzz.campaign.runner import Mark, Send, run_forked
from qfuzz.oracle.check import check_one
from qfuzz.oracle.reference import Reference


def supervise(name: str, limit: str, _: str) -> None:
    command = [sys.executable, __file__, "work", name, limit, str(os.getpid())]
    subprocess.run(command, start_new_session=True, check=True)


def work(name: str, limit: str, supervisor: str) -> None:
    die_with_parent(int(supervisor))
    start_warden()
    adopt_orphans()
    case, backend = add_case(), load_backend(f"misbehaving:{name}")

    def job(send: Send, mark: Mark) -> None:
        mark.set(0, 0, 0)
        check_one(case, backend, Reference(case))

    print("running", flush=True)
    death = run_forked(job, lambda _: None, float(limit))
    print("finished" if death is None else death.reason, flush=True)
    print(os.listdir("/proc/self/fd"), flush=True)
    time.sleep(1000)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    {"supervise": supervise, "work": work}[what](*rest)
