"""MLflow's own page on a root's database, served on this machine only."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from harness.errors import UserError
from harness.study.mlflow_page import VIEW_TAG, runs_address

HOST = "127.0.0.1"
#: Seconds the server may take to start, and to end.
START_SECONDS, END_SECONDS = 120.0, 10.0
_MOST_SHOWN = 10


def serve(root: Path, port: int) -> int:
    """Serve until Ctrl-C, or until the server ends by itself; gives the exit status.

    Raises
    ------
    UserError
        If nothing was launched below ``root``, or the port is taken.
    """
    database = root.absolute() / "mlflow.db"
    if not database.exists():
        raise UserError(f"{database} does not exist; launch a study first, or say where with --root")
    if not _is_free(port):
        raise UserError(f"port {port} is taken; choose another with --port")
    server = _start(root.absolute(), port)
    try:
        _wait_until_up(server, port)
        address = f"http://{HOST}:{port}"
        print(f"MLflow is at {address} - Ctrl-C ends it", flush=True)
        for name, experiment, view in _experiments(database):
            print(f"  {name}: {runs_address(address, experiment, view=view)}", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(server)


def _start(root: Path, port: int) -> subprocess.Popen[bytes]:
    # without the switch MLflow starts seven background processes that outlive it
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/mlflow.db"]
    command += ["--artifacts-destination", (root / "mlartifacts").as_uri()]
    log = (root / "mlflow-server.log").open("wb")
    with log:  # the server keeps its own descriptor
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def _wait_until_up(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            raise UserError(f"MLflow's server ended at once (status {server.returncode}); see mlflow-server.log")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise UserError(f"MLflow's server did not answer within {START_SECONDS:.0f} s; see mlflow-server.log")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and every process it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    server.wait()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def _experiments(database: Path) -> list[tuple[str, str, bool]]:
    """Name, number and whether it has our view, of the latest experiments; read without importing MLflow."""
    query = (
        "select e.name, e.experiment_id, exists(select 1 from experiment_tags t where t.experiment_id ="
        " e.experiment_id and t.key = ?) from experiments e where e.lifecycle_stage = 'active' and e.name != 'Default'"
        " order by e.last_update_time desc, e.experiment_id desc limit ?"
    )
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        rows = connection.execute(query, (VIEW_TAG, _MOST_SHOWN)).fetchall()
    finally:
        connection.close()
    return [(str(name), str(number), bool(view)) for name, number, view in rows]
