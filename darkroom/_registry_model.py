"""A pipeline as MLflow keeps it: its part of a model (signature, example, requirements), beside the weights."""

import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._registry import requirements

# What lies at the top of a pipeline, and of a model alone, in diffusers' layout.
PIPELINE_INDEX, MODEL_CONFIG = "model_index.json", "config.json"
# A grey PNG of 16 x 16 pixels in base64: what an autoencoder may be asked with.
EXAMPLE_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFElEQVR42mNoIBEwjGoY1TB8NQAAJYSAELxv8c8AAAAASUVORK5CYII="
)


def save_model(folder: Path, logged: Any, run_id: str, pipeline: Path) -> None:
    """Write MLflow's part of a model: all of it but the pipeline's weights."""
    from mlflow import pyfunc
    from mlflow.models import Model

    autoencoder = index_of(pipeline) != PIPELINE_INDEX
    served = _served_autoencoder() if autoencoder else _served_pipeline()
    card = Model(
        artifact_path=logged.artifact_location, run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id
    )
    with tempfile.TemporaryDirectory() as elsewhere, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of mlflow against pandas
        stand_in = Path(elsewhere) / "pipeline"
        stand_in.mkdir()
        shutil.copy(pipeline / index_of(pipeline), stand_in)
        pyfunc.save_model(
            str(folder),
            python_model=str(Path(__file__).with_name("served_autoencoder.py" if autoencoder else "served_model.py")),
            artifacts={"pipeline": str(stand_in)},
            mlflow_model=card,
            signature=served.signature,
            input_example=served.example,
            pip_requirements=list(requirements()),
        )
    card.model_size_bytes = sum(path.stat().st_size for path in pipeline.rglob("*") if path.is_file())
    card.save(str(folder / "MLmodel"))


@dataclass(frozen=True)
class Served:
    """What MLflow tells of how a model is asked: its signature, and an example of a question."""

    signature: Any
    example: Any


def _served_pipeline() -> Served:
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, Schema
    from mlflow.types.schema import ParamSpec as Parameter

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "prompt")]),
        outputs=Schema([ColSpec(DataType.string, "prompt"), ColSpec(DataType.string, "image")]),
        params=ParamSchema(
            [
                Parameter("seed", DataType.long, 0),
                Parameter("steps", DataType.long, 0),
                Parameter("guidance", DataType.double, -1.0),
            ]
        ),
    )
    asked = pandas.DataFrame({"prompt": ["the digit seven"]})
    return Served(signature, (asked, {"seed": 0, "steps": 0, "guidance": -1.0}))


def _served_autoencoder() -> Served:
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    picture = Schema([ColSpec(DataType.string, "image")])
    return Served(ModelSignature(inputs=picture, outputs=picture), pandas.DataFrame({"image": [EXAMPLE_PICTURE]}))


def index_of(folder: Path) -> str:
    """The file that says what lies in a folder: a pipeline's, or the configuration of an autoencoder alone."""
    return (
        PIPELINE_INDEX if (folder / PIPELINE_INDEX).is_file() or not (folder / MODEL_CONFIG).is_file() else MODEL_CONFIG
    )
