"""The doctor on a real SLURM: profiles that work, and each way in which one does not."""

import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from disturbed import said, until

PROFILE = Path(__file__).parents[2] / "slurm" / "local-cluster.yaml"


class Doctor:
    """Runs the doctor on profiles, several at once, and sees that it leaves nothing behind."""

    def __init__(self, folder):
        self.folder = folder
        self.profiles = 0

    def start(self, profile, *options, root=None):
        path = profile
        if not isinstance(profile, Path):
            self.profiles += 1
            path = self.folder / f"profile{self.profiles}.yaml"
            path.write_text(profile)
        root = root or self.folder / "runs" / f"of-{path.stem}"
        command = [sys.executable, "-m", "harness", "doctor", "--profile", str(path), "--root", str(root), *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.root = root
        return process

    def says(self, process, status):
        """Its lines, and which of them are wrong."""
        out, errors = process.communicate(timeout=300)
        assert process.returncode == status, out + errors
        assert errors == "" or status == 2
        assert not process.root.exists()
        lines = out.splitlines()
        queued = said("squeue", "--noheader", "--format=%i").split()
        assert not [job for job in re.findall(r"accepts the profile \(job (\d+)\)", out) if job in queued]
        assert all(line.startswith(("ok     ", "wrong  ")) for line in lines)
        return lines, [line for line in lines if line.startswith("wrong")]


@pytest.fixture
def doctor(cluster, tmp_path):
    return Doctor(tmp_path)


@pytest.fixture
def server():
    """What answers like a tracking server without an experiment."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_profiles_that_reach_a_node(doctor, server):
    """Three at once: all right; a GPU that torch does not see; a setup that ends the job."""
    good = doctor.start(PROFILE, "--tracking", server)
    no_gpu = doctor.start("gpus: 1\nmemory_gb: 0.5\n", "--tracking", "http://127.0.0.1:9")
    broken = doctor.start("memory_gb: 0.5\nsetup: [module load no-such-python, exit 127]\n")

    lines, wrong = doctor.says(good, 0)
    assert wrong == []
    assert len(lines) == 13
    for part in (f"MLflow at {server} answers", "sbatch accepts the profile", "the job started after",
                 "are the same there", "sees 0 GPUs, 0 asked for", "each side reads what the other writes",
                 "GB are free", "the clocks agree", "warning before the time limit reaches a trial"):  # fmt: skip
        assert len([line for line in lines if part in line]) == 1, part

    lines, wrong = doctor.says(no_gpu, 1)
    assert len(lines) == 13
    assert [line.split(";")[0] for line in wrong] == [
        "wrong  MLflow at http://127.0.0.1:9 does not answer (Connection refused)",
        next(line for line in lines if "torch" in line).split(";")[0],
    ]
    assert "sees 0 GPUs, but 1 were asked for; SLURM granted device" in wrong[1]

    _, wrong = doctor.says(broken, 1)
    assert len(wrong) == 1
    assert "module" in wrong[0] or "before Python began" in wrong[0]
    assert "see that setup" in wrong[0]


def test_a_job_that_does_not_start_is_given_up_with_the_reason(doctor, tmp_path):
    blocking = said("sbatch", "--parsable", "--cpus-per-task=8", "--mem=100", "-o", "/dev/null", "--wrap", "sleep 600")
    try:
        until(lambda: said("squeue", "-h", "-j", blocking, "-o", "%T") == "RUNNING", "the node is taken")
        _, wrong = doctor.says(doctor.start(PROFILE, "--patience", "1"), 1)
    finally:
        said("scancel", blocking)
    assert len(wrong) == 1
    assert "has not started after" in wrong[0]
    assert any(reason in wrong[0] for reason in ("(Resources)", "(Priority)", "(None)"))
    assert "wait longer with --patience" in wrong[0]


def test_what_sbatch_or_the_file_system_refuses(doctor, tmp_path):
    (tmp_path / "file").write_text("")
    cases = {
        "no partition 'norml', only narrow, normal, urgent; correct": doctor.start("partition: norml\n"),
        "SLURM refused the job: ": doctor.start("memory_gb: 999999\ndriver: {memory_gb: 0.5}\n"),
        "sbatch refuses a driver's job, for launch --detach (": doctor.start(
            "memory_gb: 0.5\ndriver: {partition: cpu}\n", "--patience", "60"
        ),
        "cannot be written from here (Not a directory); give another folder with --root": doctor.start(
            PROFILE, root=tmp_path / "file" / "runs"
        ),
    }
    for part, process in cases.items():
        _, wrong = doctor.says(process, 1)
        assert [part in line for line in wrong] == [True], (part, wrong)


@pytest.mark.parametrize(
    ("profile", "options", "sentence"),
    [
        ("partitoin: x\n", (), "did you mean partition?"),
        ("cpus: 1\n", ("--patience", "0"), "--patience is 0, but must be above 0 seconds"),
        ("cpus: 1\n", ("--tracking", "file:///tmp/x"), "tracking"),
    ],
)
def test_wrong_input(tmp_path, profile, options, sentence):
    doctor = Doctor(tmp_path)
    process = doctor.start(profile, *options)
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert sentence in errors
    assert len(errors.splitlines()) == 1


def test_without_slurm_the_doctor_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    process = Doctor(tmp_path).start("cpus: 1\n")
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    (wrong,) = [line for line in out.splitlines() if line.startswith("wrong")]
    assert "no SLURM here: sbatch is not on PATH" in wrong
    assert not process.root.exists()
