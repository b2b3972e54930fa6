import pytest

from harness.errors import UserError
from harness.study.load import dump_study, load_profile, load_study
from harness.study.plan import plan

STUDY = """\
description: a study
models:
  - {kind: perturbed_vae, pairing: true}
  - {kind: beta_vae}
data:
  kind: simulation
  preset: tiny
grid:
  sparsity: [0, 1e-3]
  latent_dim: [5, 6]
seeds: 2
train:
  epochs: 3
  learning_rate: 1e-3
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a study file below it."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "s.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "studies"


def load(place, *overrides, name="s.yaml"):
    return load_study(place / name, overrides)


def write(place, name, text):
    (place / name).write_text(text)
    return place / name


def refused(place, *overrides, name="s.yaml"):
    with pytest.raises(UserError) as caught:
        load(place, *overrides, name=name)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "pydantic" not in sentence
    return sentence


def test_a_file_becomes_a_study(place):
    study = load(place)
    assert study.name == "s"
    assert study.grid == {"sparsity": (0, 0.001), "latent_dim": (5, 6)}
    assert study.train.learning_rate == 0.001
    assert study.models[0]["pairing"] is True
    assert plan(study, lambda _: "x").points[0].trials[0].spec.model.pairing == "true"


def test_the_resolved_study_is_read_back_the_same(place):
    study = load(place, "data.seed=per_trial", "compute.workers=2", "description='1e-3'")
    write(place, "again.yaml", dump_study(study))
    assert load(place, name="again.yaml") == study
    bare = write(place, "bare.yaml", "models: [{kind: beta_vae}]\ndata: {kind: simulation}\n")
    write(place, "again.yaml", dump_study(load_study(bare)))
    assert load(place, name="again.yaml") == load_study(bare)


# -------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds: 2", "seedz: 2", "s.yaml, line 11: key seedz is unknown; did you mean seeds?"),
        ("models:", "modles:", "s.yaml, line 2: key modles is unknown; did you mean models?"),
        ("epochs: 3", "epoch: 3", "line 13: key train.epoch is unknown; did you mean epochs?"),
        ("pairing: true", "pairng: true", "line 3: key models.0.pairng is unknown; did you mean pairing?"),
        ("preset: tiny", "prest: tiny", "line 7: key data.prest is unknown; did you mean preset?"),
        ("preset: tiny", "process: {respnsive: 3}", "key data.process.respnsive is unknown; did you mean responsive?"),
        ("  sparsity:", "  sparsty:", "line 9: grid.sparsty is over an unknown field; did you mean sparsity?"),
        (
            "kind: perturbed_vae",
            "kind: perturbd_vae",
            'models.0.kind "perturbd_vae" is unknown; did you mean perturbed_vae?',
        ),
        ("kind: simulation", "kind: simulaton", 'data.kind "simulaton" is unknown; did you mean simulation?'),
        ("epochs: 3", "epochs: three", 'train.epochs is "three", but must be an integer'),
        ("epochs: 3", "epochs: true", "train.epochs is true, but must be an integer"),
        ("epochs: 3", "epochs: 2.5", "train.epochs is 2.5, but must be an integer"),
        ("epochs: 3", "epochs: [3]", "train.epochs is [3], but must be an integer"),
        ("learning_rate: 1e-3", "learning_rate: 0", "train.learning_rate is 0, but must be above 0"),
        ("learning_rate: 1e-3", "learning_rate: .nan", "train.learning_rate is NaN, but must be"),
        ("epochs: 3", "schedule: cosin", "must be 'cosine' or 'constant'; did you mean cosine?"),
        ("pairing: true", "latent_dim: -4", "models.0.latent_dim is -4, but must be at least 1"),
        ("[5, 6]", "[5, -6]", "line 10: grid.latent_dim.1 is -6, but must be at least 1"),
        ("[5, 6]", "[]", "grid.latent_dim is [], but must have at least 1 entry"),
        ("[5, 6]", "5", "grid.latent_dim is 5, but must be a list of values, e.g. [5]"),
        ("[5, 6]", "", "grid.latent_dim is null, but must be a list of values"),
        ("[5, 6]", "[5, 3]", "models.0: responsive_dim 4 leaves no room in latent_dim 3 (in the cell perturbed_vae"),
        ("pairing: true", "network: conv, input_pca: 3", "line 3: models.0: input_pca needs network: mlp"),
        ("preset: tiny", "process: {steps: 3}", "line 7: data.process: steps > 1 needs lagged"),
        ("preset: tiny", "seed: per_tral", "data.seed is \"per_tral\", but must be an integer or 'per_trial'"),
        ("seeds: 2", "seeds: 0", "line 11: seeds is 0, but at least one seed is needed"),
        ("seeds: 2", "seeds: []", "seeds is [], but must have at least 1 entry"),
        ("seeds: 2", "compute: {pack: 4}", "compute.pack: batched packing is not available"),
        ("seeds: 2", "compute: {cluster: slrum}", "must be 'inline', 'local' or 'slurm'; did you mean slurm?"),
        ("seeds: 2", "compute: {cluster: slurm}", "compute: cluster: slurm needs profile"),
        ("seeds: 2", "compute: {cluster: slurm, profile: no.yaml}", "compute.profile is no.yaml, but nothing is there"),
        ("seeds: 2", "objective: {metric: ood/x/r2, direction: maximize}", "or say oracle: true"),
        (
            "seeds: 2",
            "objective: {metric: validation/loss}",
            "objective.direction is missing; give one of minimize, maximize",
        ),
        (
            "seeds: 2",
            "search: {trials: 2, space: {hidden: {low: 4, hgh: 5}}}",
            "hidden.hgh is unknown; did you mean high?",
        ),
        ("seeds: 2", "seeds: 2\nseeds: 3", "line 12, column 1: key seeds stands here a second time, first in line 11"),
        ("[5, 6]", "[5, 6", "s.yaml, line "),
    ],
)
def test_mistakes_are_named_with_file_line_key_and_remedy(place, old, new, said):
    assert old in STUDY
    write(place, "s.yaml", STUDY.replace(old, new))
    sentence = refused(place)
    assert said in sentence
    assert "s.yaml" in sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("- 1", "is a mapping of keys"),
        ("models: []\ndata: {kind: simulation}", "models is [], but must have at least 1 entry"),
        ("data: {kind: simulation}", "key models is missing"),
        ("models: [{kind: beta_vae}]", "key data is missing"),
        ("models: {kind: beta_vae}\ndata: {kind: simulation}", "but must be a list"),
        ("models: [beta_vae]\ndata: {kind: simulation}", 'models.0 is "beta_vae", but must be a mapping'),
        ("models: [{kind: beta_vae}]\ndata: {kind: simulation}\ngrid: {}", "grid is empty"),
        ("models: [{kind: beta_vae}]\ndata: {kind: simulation}\ngrid:", "grid is null, but must be a mapping"),
        ("models: [{kind: beta_vae}]\ndata: simulation", 'data is "simulation", but must be a mapping'),
        ("name: ../x\nmodels: [{kind: beta_vae}]\ndata: {kind: simulation}", "is no safe folder name"),
    ],
)
def test_files_that_are_no_study_are_refused(place, text, said):
    write(place, "t.yaml", text)
    assert said in refused(place, name="t.yaml")


def test_a_missing_file_suggests_its_neighbour(place):
    assert refused(place, name="ss.yaml").endswith("s.yaml?")
    assert "is a folder" in refused(place, name="")
    (place / "b.yaml").write_bytes(b"\xff\xfe\x00")
    assert "no text file" in refused(place, name="b.yaml")


# --------------------------------------------------------------------------------------------------- base


def test_base_merges_mappings_and_replaces_lists(place):
    write(place, "child.yaml", "base: s.yaml\nmodels: [{kind: cite_vae}]\ntrain: {epochs: 9}\ngrid: {sparsity: [1]}\n")
    study = load(place, name="child.yaml")
    assert study.name == "child"
    assert study.description == "", "name and description say which study it is, and are not inherited"
    assert study.models == ({"kind": "cite_vae"},)
    assert (study.train.epochs, study.train.learning_rate) == (9, 0.001)
    assert study.grid == {"sparsity": (1,), "latent_dim": (5, 6)}


def test_null_takes_away_what_was_inherited(place):
    write(place, "child.yaml", "base: s.yaml\ntrain:\ngrid: {sparsity: }\n")
    study = load(place, name="child.yaml")
    assert study.grid == {"latent_dim": (5, 6)}
    assert study.train.epochs == 100


def test_a_mapping_of_another_kind_starts_afresh(place):
    write(place, "child.yaml", "base: s.yaml\ndata: {kind: perturbseq, pairs: true}\n")
    assert load(place, name="child.yaml").data == {"kind": "perturbseq", "pairs": True}


def test_base_is_found_beside_the_file_through_a_chain(place):
    (place / "deep").mkdir()
    write(place, "mid.yaml", "base: s.yaml\nseeds: 7\n")
    write(place / "deep", "leaf.yaml", "base: ../mid.yaml\ntrain: {epochs: 1}\n")
    study = load(place / "deep", name="leaf.yaml")
    assert (len(study.seeds), study.train.epochs) == (7, 1)


def test_a_mistake_in_a_base_is_named_where_it_stands(place):
    write(place, "s.yaml", STUDY.replace("epochs: 3", "epochs: x"))
    write(place, "child.yaml", "base: s.yaml\nseeds: 3\n")
    assert refused(place, name="child.yaml").startswith("studies/s.yaml, line 13: train.epochs")


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("child.yaml", "inherits from itself"),
        ("no.yaml", "is no file"),
        ("[s.yaml]", "must be the path"),
        ("3", "must be"),
    ],
)
def test_impossible_bases_are_refused(place, base, said):
    write(place, "child.yaml", f"base: {base}\n")
    sentence = refused(place, name="child.yaml")
    assert said in sentence
    assert "line 1" in sentence


def test_a_longer_circle_is_named(place):
    write(place, "a.yaml", "base: b.yaml\n")
    write(place, "b.yaml", "base: a.yaml\n")
    assert "a.yaml -> b.yaml -> a.yaml" in refused(place, name="a.yaml")


# -------------------------------------------------------------------------------------------------- --set


def test_overrides_reach_every_depth(place):
    study = load(
        place,
        "train.epochs=7",
        "models.0.hidden=64",
        "models.0.alignment.weight=1e1",
        "grid.data.noise=[0.1, 0.2]",
        "data.process.responsive=3",
        "search.trials=4",
        "search.space.alignment.weight.low=1",
        "search.space.alignment.weight.high=9",
        "search.space.hidden={low: 4, high: 8}",
        "grid.sparsity=null",
    )
    assert study.train.epochs == 7
    assert study.models[0] == {"kind": "perturbed_vae", "pairing": True, "hidden": 64, "alignment": {"weight": 10.0}}
    assert study.grid == {"latent_dim": (5, 6), "data.noise": (0.1, 0.2)}
    assert study.data["process"] == {"responsive": 3}
    assert set(study.search.space) == {"alignment.weight", "hidden"}
    assert load(place, "seeds=5").seeds == (0, 1, 2, 3, 4)


def test_the_last_override_wins_and_may_hold_an_equals_sign(place):
    assert load(place, "train.epochs=7", "train.epochs=8", "description=a=b").description == "a=b"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs", "--set train.epochs has no value; write --set key=value"),
        ("=3", "has no value"),
        ("train.epoch=3", "--set train.epoch=3: key train.epoch is unknown; did you mean epochs?"),
        ("models.5.hidden=3", "models is a list and has no entry '5'; its entries are 0, 1"),
        ("models.first.hidden=3", "has no entry 'first'"),
        ("train.epochs.x=3", "reaches into train.epochs, which is 3 and no mapping"),
        ("train.epochs=[1", "--set train.epochs=[1, line 1"),
        ("models.0.latent_dim=-1", "--set models.0.latent_dim=-1: models.0.latent_dim is -1, but must be at least 1"),
        ("grid.latent_dim=[-1]", "--set grid.latent_dim=[-1]: grid.latent_dim.0 is -1"),
    ],
)
def test_wrong_overrides_are_named_as_such(place, override, said):
    assert said in refused(place, override)


# -------------------------------------------------------------------------------------------------- paths


def test_paths_are_found_beside_the_file_first(place):
    for folder in (place, place.parent):
        write(folder, "x.h5ad", "")
    write(place.parent, "y.h5ad", "")
    write(place, "p.yaml", "models: [{kind: beta_vae}]\ndata: {kind: perturbseq, path: x.h5ad}\n")
    assert load(place, name="p.yaml").data["path"] == str(place / "x.h5ad")
    assert load(place, "data.path=x.h5ad", name="p.yaml").data["path"] == str(place.parent / "x.h5ad")
    write(place, "p.yaml", "models: [{kind: beta_vae}]\ndata: {kind: perturbseq, path: y.h5ad}\n")
    assert load(place, name="p.yaml").data["path"] == str(place.parent / "y.h5ad")


def test_a_bases_paths_are_its_own(place):
    (place / "deep").mkdir()
    write(place, "x.h5ad", "")
    write(place, "p.yaml", "models: [{kind: beta_vae}]\ndata: {kind: perturbseq, path: x.h5ad}\n")
    write(place / "deep", "q.yaml", "base: ../p.yaml\n")
    assert load(place / "deep", name="q.yaml").data["path"] == str(place / "x.h5ad")


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ("data: {kind: perturbseq, path: no.h5ad}", "data.path is no.h5ad"),
        ("data: {kind: perturbseq, path: /no/no.h5ad}", "data.path is /no/no.h5ad"),
        ("data: {kind: causal3dident, meshes: no}", "data.meshes is no"),
        ("data: {kind: perturbseq}\ngrid: {data.path: [no.h5ad]}", "grid.data.path.0 is no.h5ad"),
    ],
)
def test_missing_files_are_named_before_anything_runs(place, data, key):
    write(place, "p.yaml", f"models: [{{kind: beta_vae}}]\n{data}\n")
    assert f"{key}, but nothing is there" in refused(place, name="p.yaml")


def test_cache_folder_need_not_exist(place):
    assert load(place, "data.cache_dir=later").data["cache_dir"] == str(place.parent / "later")


# ------------------------------------------------------------------------------------------------ profiles


def test_profiles_are_read_and_checked_with_the_study(place):
    write(place, "gpu.yaml", "partition: gpu\ngpus: 1\nsetup: [module load cuda]\nmemory_gb: 16\n")
    study = load(place, "compute={cluster: slurm, profile: studies/gpu.yaml}")
    profile = load_profile(place / "gpu.yaml")
    assert study.compute.profile == str(place / "gpu.yaml")
    assert (profile.partition, profile.gpus, profile.setup) == ("gpu", 1, ("module load cuda",))
    write(place, "gpu.yaml", "partition: gpu\ngpu: 1\n")
    sentence = refused(place, "compute={cluster: slurm, profile: studies/gpu.yaml}")
    assert "gpu.yaml, line 2: key gpu is unknown; did you mean gpus?" in sentence


def test_an_empty_profile_is_all_defaults_and_a_list_is_none(place):
    assert load_profile(write(place, "e.yaml", "")).cpus == 1
    with pytest.raises(UserError, match="must be a mapping"):
        load_profile(write(place, "e.yaml", "- 1"))
    with pytest.raises(UserError, match="does not exist"):
        load_profile(place / "no.yaml")


def test_a_profile_that_is_not_used_need_not_be_there(place):
    assert load(place, "compute={cluster: local, profile: no.yaml}").compute.cluster == "local"


def test_a_new_mapping_of_an_override_is_named_by_it(place):
    assert refused(place, "trian.epochs=3") == "--set trian.epochs=3: key trian is unknown; did you mean train?"
    assert "has nothing beside one of its dots" in refused(place, "train..epochs=3")


def test_a_count_of_seeds_has_a_limit(place):
    assert "is at most 10000" in refused(place, "seeds=10000000000000")


# --------------------------------------------------------------------------------------------- every_model


def test_every_model_starts_from_shared_fields(tmp_path):
    path = write(
        tmp_path,
        "s.yaml",
        """
        every_model: {latent_dim: 11, responsive_dim: 4, alignment: {weight: 3, kind: mmd}}
        models:
          - {kind: perturbed_vae, mechanisms: free}
          - {kind: perturbed_vae, latent_dim: 8, alignment: {weight: 5}}
          - {kind: beta_vae}
        data: {kind: simulation}
        """,
    )
    free, own, control = load_study(path).models
    assert (free["latent_dim"], free["alignment"]) == (11, {"weight": 3, "kind": "mmd"})
    assert (own["latent_dim"], own["alignment"]) == (8, {"weight": 5, "kind": "mmd"})
    assert control == {"kind": "beta_vae", "latent_dim": 11}


def test_every_model_is_inherited_key_by_key(tmp_path):
    write(tmp_path, "recipe.yaml", "every_model: {latent_dim: 11, responsive_dim: 4}\nmodels: [{kind: cite_vae}]\n")
    path = write(tmp_path, "s.yaml", "base: recipe.yaml\nevery_model: {latent_dim: 12}\ndata: {kind: simulation}\n")
    assert load_study(path).models == ({"kind": "cite_vae", "latent_dim": 12, "responsive_dim": 4},)
    assert load_study(path, ["every_model.latent_dim=13"]).models[0]["latent_dim"] == 13
    assert load_study(path, ["models.0.latent_dim=14"]).models[0]["latent_dim"] == 14


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        ("{latnt_dim: 11}", "every_model.latnt_dim is a field of no model listed; did you mean latent_dim?"),
        ("{kind: cite_vae}", "every_model.kind is a field of no model listed"),
        ("[11]", "every_model is [11], but must be a mapping of model fields"),
        ("{latent_dim: many}", "latent_dim"),
    ],
)
def test_every_model_is_checked(tmp_path, shared, said):
    text = f"models: [{{kind: beta_vae}}]\ndata: {{kind: simulation}}\nevery_model: {shared}\n"
    with pytest.raises(UserError) as error:
        load_study(write(tmp_path, "s.yaml", text))
    assert said in str(error.value)
    assert "line 3" in str(error.value)


SHARED = "models: [{kind: perturbed_vae}]\ndata: {kind: perturbseq}\nevery_model:\n  likelihood_variance: 0.05\n"


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("[{kind: pvae}]", 'models.0.kind "pvae" is unknown; known are perturbed_vae, cite_vae'),
        ("[{kind: perturbed_vea}]", "did you mean perturbed_vae?"),
        ("[{}]", "models.0 needs a kind: one of perturbed_vae"),
        ("[]", "models is [], but must have at least 1 entry"),
        ("[3]", "models.0 is 3, but must be a mapping"),
        ("{}", "models is {}, but must be a list"),
    ],
)
def test_models_are_judged_before_what_every_model_gives_them(tmp_path, models, said):
    with pytest.raises(UserError) as error:
        load_study(write(tmp_path, "s.yaml", SHARED), [f"models={models}"])
    assert str(error.value).startswith(f"--set models={models}: models")
    assert said in str(error.value)


def test_null_takes_away_what_every_model_gives(tmp_path):
    path = write(tmp_path, "s.yaml", SHARED)
    assert load_study(path).models[0]["likelihood_variance"] == 0.05
    taken = load_study(path, ["every_model.likelihood=nb", "every_model.likelihood_variance=null"])
    assert taken.models == ({"kind": "perturbed_vae", "likelihood": "nb"},)
    heir = write(tmp_path, "t.yaml", "base: s.yaml\nevery_model: {likelihood_variance: null, hidden: 8}\n")
    assert load_study(heir).models == ({"kind": "perturbed_vae", "hidden": 8},)


def test_what_fields_get_wrong_together_is_blamed_on_the_change_and_can_be_unset(tmp_path):
    path = write(tmp_path, "s.yaml", SHARED)
    with pytest.raises(UserError) as error:
        load_study(path, ["every_model.likelihood=nb"])
    said = str(error.value)
    assert said.startswith("--set every_model.likelihood=nb: models.0: likelihood_variance belongs to likelihood: mse")
    assert said.endswith("leave it out; unset it with --set every_model.likelihood_variance=null")


def test_a_name_is_no_study_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^study file mine does not exist; give the file of a study, such as studies/"):
        load_study("mine")
    (tmp_path / "studies" / "more").mkdir(parents=True)
    write(tmp_path / "studies" / "more", "mine.yaml", SHARED)
    with pytest.raises(UserError, match=r"^study file mine does not exist; did you mean studies/more/mine\.yaml\?"):
        load_study("mine")
