"""What a report says of single latents, and of a model that is told the truth."""

from report_samples import MCC, fill, planned, record, study, write_result

from harness.study.notes import notes
from harness.study.records import Records
from harness.study.report import write_report
from harness.study.tables import latent_tables, tables


def metrics_of(level, *, ceiling=None):
    """Scores of an image trial with two latents."""
    scores = {MCC: level, f"{MCC}_untrained": 0.5}
    for name, below in (("x", 0.0), ("hue_object", 0.1)):
        scores |= {f"identifiability/factor/{name}/r2": level - below}
        scores |= {f"identifiability/factor/{name}/r2_untrained": 0.6, f"identifiability/factor/{name}/r2_linear": 0.3}
        if ceiling is not None:
            scores |= {
                f"identifiability/ceiling/{name}/r2": ceiling - below,
                f"identifiability/ceiling/{name}/r2_untrained": -0.5,
                f"identifiability/ceiling/{name}/r2_class_3": 0.1,
            }
    scores |= {"identifiability/dci/completeness": 0.4, "identifiability/citris/r2_off_diagonal": 0.2}
    return scores


def models():
    return Records(
        [
            record("a", metrics=metrics_of(0.65)),
            record("b", model="supervised", metrics=metrics_of(0.97, ceiling=0.99)),
            record("c", model="beta_vae", state="failed", failure="train/loss is nan"),
        ]
    )


def texts(table):
    return [[*row.labels, *table.texts(row)] for row in table.rows]


def test_the_ceiling_stands_beside_what_each_latent_reaches():
    each, ceiling, whole = latent_tables(models())
    assert [column.title for column in each.columns] == ["x", "hue object"]
    assert texts(each)[:2] == [
        ["PerturbedVAE", "1", "0.65", "0.55†"],  # below its untrained encoder's 0.6
        ["Supervised (oracle)", "1", "0.97", "0.87"],
    ]
    assert each.rows[2].labels == ("β-VAE", "0/1")
    assert ceiling.title.startswith("Ceiling")
    assert texts(ceiling)[0] == ["Supervised (oracle)", "1", "0.99", "0.89"]
    assert [row.labels[0] for row in ceiling.rows] == ["Supervised (oracle)", "β-VAE"]
    assert [column.metric for column in whole.columns] == [
        "identifiability/dci/completeness",
        "identifiability/citris/r2_off_diagonal",
    ]


def test_without_scores_of_single_latents_there_are_no_such_tables():
    assert latent_tables(Records([record(metrics={MCC: 0.9})])) == []


def test_a_table_with_an_oracle_says_so():
    lines = notes(models(), tables(models()))
    assert any(line.startswith("Supervised (oracle): ") and "is no rival" in line for line in lines)
    assert not any("oracle" in line for line in notes(Records([record(metrics={MCC: 0.9})]), []))


def test_the_page_holds_them_and_the_terminal_is_spared(folder):
    spec = study(models=[{"kind": "perturbed_vae"}, {"kind": "supervised"}], grid={}, seeds=1)
    plan = planned(spec)
    fill(folder, plan.points[:1])
    for trial, (level, ceiling) in zip(plan.trials, ((0.65, None), (0.97, 0.99)), strict=True):
        write_result(folder, trial.trial_id, metrics=metrics_of(level, ceiling=ceiling), baselines={})
    report = write_report(folder, spec, plan)
    for written in ((folder.report / "index.html").read_text(), (folder.report / "table.md").read_text()):
        assert "R² of each latent" in written
        assert "Ceiling" in written
        assert "† Not above the untrained encoder" in written
    assert "Ceiling" not in report.text
    assert "Supervised (oracle)" in report.text
