"""A PostgreSQL server of a test's own: Debian's programs, in a temporary folder, reached by a socket in it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
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
    folder, prefix = Path(tempfile.mkdtemp(prefix="nas-pg-")), list[str]()
    try:
        if os.geteuid() == 0:
            user = next((each for each in pwd.getpwall() if each.pw_name in USERS), None)
            if user is None or shutil.which("setpriv") is None:
                raise UnavailableError("PostgreSQL does not run as root, and no other user can be taken")
            os.chown(folder, user.pw_uid, user.pw_gid)
            prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

        def call(program: str, *arguments: str) -> None:
            command = [*prefix, str(programs.with_name(program)), "-D", str(folder / "data"), *arguments]
            with (folder / "output").open("ab") as output:  # no pipe, which the server would keep open
                code = subprocess.run(command, stdout=output, stderr=output, cwd=folder, check=False).returncode
            if code:
                raise UnavailableError(f"{program}: {(folder / 'output').read_text()[-500:]}")

        call("initdb", "--auth=trust", "--username=nas", "--no-sync", "--encoding=UTF8", "--locale=C")
        call("pg_ctl", "start", "--wait", "-o", f"-k {folder} -c listen_addresses='' -c fsync=off")
        try:
            yield f"postgresql://nas@/{{}}?host={folder}"
        finally:
            call("pg_ctl", "stop", "--wait", "--mode=immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
