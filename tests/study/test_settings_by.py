"""``settings_by`` in study files that inherit from each other."""

import pytest

from harness.errors import UserError
from harness.study.load import dump_study, load_study

STUDY = """\
models: [{kind: beta_vae}]
data: {kind: simulation, preset: tiny}
settings_by: truth
"""


def load(folder, text, *changes):
    (folder / "base.yaml").write_text(STUDY)
    (folder / "child.yaml").write_text(text)
    return load_study(folder / "child.yaml", changes)


@pytest.mark.parametrize(
    ("own", "found"),
    [("", "truth"), ("settings_by: validation\n", "validation"), ("settings_by: null\n", "none")],
)
def test_how_settings_were_chosen_is_inherited_until_a_file_says_otherwise(tmp_path, own, found):
    study = load(tmp_path, f"base: base.yaml\n{own}")
    assert study.settings_by == found
    (tmp_path / "again.yaml").write_text(dump_study(study))
    assert load_study(tmp_path / "again.yaml").settings_by == found


def test_a_change_on_the_command_line_counts_last(tmp_path):
    assert load(tmp_path, "base: base.yaml\n", "settings_by=published").settings_by == "published"


def test_another_word_is_refused_in_one_sentence_that_names_those_that_would_do(tmp_path):
    with pytest.raises(UserError) as refusal:
        load(tmp_path, "base: base.yaml\nsettings_by: mcc\n")
    said = str(refusal.value)
    assert 'child.yaml, line 2: settings_by is "mcc"' in said
    assert all(word in said for word in ("truth", "validation", "published", "none"))
    assert "\n" not in said
