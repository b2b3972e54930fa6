"""The code of an exported model: MLflow copies this file into it, and runs it to load the model.

Nothing is pickled; what is trained lies beside it as a trial's own files.
"""

from mlflow.models import set_model

from harness.pyfunc_model import TrialModel

set_model(TrialModel())
