"""What a job saw on its node, judged."""

import pytest

from harness.study.doctor_answer import judge
from harness.study.doctor_probe import look_around
from harness.study.profile_spec import ProfileSpec


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """What there is to see on this machine."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "token").write_text("abc")
    answer = look_around(folder)
    assert [path.name for path in folder.iterdir()] == ["token"]
    return answer


def findings(answer, ahead=0.0, late=0.0, **profile):
    return list(judge(answer, ProfileSpec(**profile), "abc", here=answer["now"] + late, ahead=ahead))


def wrong(answer, **keys):
    (finding,) = [finding for finding in findings(answer, **keys) if not finding.ok]
    assert finding.remedy
    assert str(finding) == f"wrong  {finding.what}; {finding.remedy}"
    return str(finding)


def test_a_node_like_this_machine_is_right(here):
    assert [finding for finding in findings(here) if not finding.ok] == []
    assert all(str(finding).startswith("ok     ") for finding in findings(here))
    assert abs(here["ahead"]) < 5


def test_another_installation(here):
    said = wrong({**here, "python": "3.8.1", "executable": "/usr/bin/python3"})
    assert "there runs Python 3.8.1" in said
    assert "/usr/bin/python3" in said
    assert "harness 0.0.1" in wrong({**here, "harness": "0.0.1"})


def test_gpus(here):
    one = {**here, "torch": {"version": "2.9", "gpus": ["A100"]}, "devices": "0"}
    assert findings(one, gpus=1)[1].what == "torch 2.9 sees 1 GPU (A100), 1 asked for"
    assert "sees 1 GPU (A100), but 2 were asked for; SLURM granted device 0" in wrong(one, gpus=2)
    assert "SLURM granted none, so correct gpus" in wrong({**here, "devices": None}, gpus=1)
    assert "cannot be used there (ImportError: libcudart" in wrong(
        {**here, "torch": {"error": "ImportError: libcudart"}}
    )


def test_another_folder_or_a_full_one(here):
    assert "is another folder; give one with --root" in wrong({**here, "token": None})
    assert "only 0.1 GB are free" in wrong({**here, "free": 1e8})


def test_clocks(here):
    assert "node's clock is 100 s ahead" in wrong({**here, "ahead": 100.0})
    assert "node's clock is 100 s behind" in wrong(here, ahead=100.0 + here["ahead"])
    # a file system that takes the time from whoever writes: an answer from the future still shows
    assert "node's clock is 60 s ahead" in wrong(here, late=-60.0, ahead=here["ahead"])
    assert findings(here, late=600.0, ahead=here["ahead"])[-1].ok  # seen late, which a shared file system may cause
