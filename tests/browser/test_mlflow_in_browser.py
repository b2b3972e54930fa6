"""MLflow's page on a launched study, looked at in a real browser."""

import html
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
#: Pages draw only the columns that fit; time in the page runs faster than ours, but stops while it loads.
VIEWPORT, PATIENCE = "--window-size=4000,1400", "--virtual-time-budget=30000"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here")


def run(*command, timeout=180):
    """Standard output of a program, which is ended with all its children when it hangs."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    try:
        said, complaint = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, complaint
    return said


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with one small study that ran."""
    folder = tmp_path_factory.mktemp("browser")
    study = folder / "tiny.yaml"
    study.write_text(
        "models: [{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2, hidden: 16, layers: 1}]\n"
        "data: {kind: simulation, preset: tiny}\n"
        "seeds: 2\n"
        "train: {epochs: 2, batch_size: 64, second_stage: {restarts: 2, steps: 10}}\n"
        "evaluate: {rotation_steps: 10}\n"
        "compute: {cluster: inline}\n"
    )
    run(sys.executable, "-m", "harness", "launch", str(study), "--root", str(folder / "runs"))
    return folder / "runs"


@pytest.fixture(scope="module")
def address(root):
    """Where `harness ui` says that the study is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "harness", "ui", "--root", str(root), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        named = (re.match(r"\s*tiny: (http\S+)", line) for line in server.stdout)
        yield next(found[1] for found in named if found)
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


@pytest.fixture
def text_of(tmp_path):
    """What a person reads on a page, as one line of text, once ``wanted`` stands there."""

    def look(page, wanted):
        text = ""
        for attempt in range(4):
            profile = f"--user-data-dir={tmp_path / str(attempt)}"
            dom = run(BROWSER, *QUIET, VIEWPORT, PATIENCE, profile, "--dump-dom", page)
            dom = re.sub(r"<(script|style)\b.*?</\1>", " ", dom, flags=re.DOTALL)
            text = " ".join(html.unescape(re.sub("<[^>]+>", " ", dom)).split())
            if wanted in text:
                return text
        pytest.fail(f"{wanted!r} is not on {page}: {text[:2000]}")

    return look


def results(root):
    return [json.loads(path.read_text()) for path in root.glob("tiny/trials/*/result.json")]


def test_the_address_opens_on_trials_with_their_scores(root, address, text_of):
    page = text_of(address, "matching runs")

    assert "Overview" not in page.split("Experiments")[0]  # not the dashboard for language models
    assert "seed 0" in page
    assert "seed 1" in page
    assert "identifiability/mcc_untrained" in page
    assert page.count("targets, pairs, sizes") == 3  # the helps of the launch and of each trial
    for result in results(root):
        assert str(result["metrics"]["identifiability/mcc"]) in page
        assert str(result["metrics"]["ood/double/rmse_relative"]) in page


def test_a_trial_shows_its_metrics_and_parameters(root, address, text_of):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    child = client.search_runs([experiment.experiment_id], "tags.seed = '1'")[0]
    site = address.partition("#")[0]

    page = text_of(f"{site}#/experiments/{experiment.experiment_id}/runs/{child.info.run_id}", "identifiability/mcc")

    assert str(child.data.metrics["identifiability/mcc"]) in page
    assert f"trial_id : {child.data.tags['trial_id']}" in page
    assert "perturbed_vae" in page
