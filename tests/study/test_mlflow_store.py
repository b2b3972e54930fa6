import pytest
from mlflow.exceptions import MlflowException

from harness.study.mlflow_store import connect


def test_an_error_of_the_database_is_raised_and_not_printed(tmp_path, empty_database, capfd):
    database = tmp_path / "mlflow.db"
    database.write_bytes(empty_database.read_bytes())
    client = connect(f"sqlite:///{database}?mode=ro&uri=true".replace("sqlite:///", "sqlite:///file:"))
    with pytest.raises(MlflowException, match="readonly"):
        client.create_experiment("e")
    assert "Traceback" not in capfd.readouterr().err
