"""A PostgreSQL server of a test's own: Debian's programs, in a temporary folder, reached by a socket in it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USERS = ("postgres", "nobody")
"""Who may run the server if the tests run as root, which PostgreSQL refuses."""


class UnavailableError(Exception):
    """Why no server can be started."""


@contextmanager
def server() -> Iterator[str]:
    """Start a server; returns the URL of its databases, which lacks their name, as a pattern."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)
    if programs is None:
        raise UnavailableError("PostgreSQL is not installed")
    if shutil.which("setpriv") is None:
        raise UnavailableError("the program setpriv is missing")
    folder = Path(tempfile.mkdtemp(prefix="nas-pg-"))
    prefix = ["setpriv", "--pdeathsig=QUIT"]  # the server ends also if the tests are killed
    try:
        if os.geteuid() == 0:
            user = next((each for each in pwd.getpwall() if each.pw_name in USERS), None)
            if user is None:
                raise UnavailableError("PostgreSQL does not run as root, and no other user can be taken")
            os.chown(folder, user.pw_uid, user.pw_gid)
            prefix += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

        def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
            command = [*prefix, str(programs.with_name(program)), *arguments]
            with (folder / "output").open("ab") as output:
                return subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)

        def require(well: bool, program: str) -> None:
            if not well:
                raise UnavailableError(f"{program}: {(folder / 'output').read_text()[-500:]}")

        data = ["-D", f"{folder / 'data'}"]
        made = start("initdb", *data, "--auth=trust", "--username=nas", "--no-sync", "--encoding=UTF8", "--locale=C")
        require(made.wait() == 0, "initdb")
        running = start("postgres", *data, "-k", f"{folder}", "-c", "listen_addresses=", "-c", "fsync=off")
        try:
            while start("pg_isready", "-h", f"{folder}").wait():
                require(running.poll() is None, "postgres")
                time.sleep(0.05)
            yield f"postgresql://nas@/{{}}?host={folder}"
        finally:
            running.send_signal(signal.SIGQUIT)
            running.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
