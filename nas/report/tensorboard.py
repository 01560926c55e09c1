"""The records of a run as TensorBoard scalars."""

from __future__ import annotations

from pathlib import Path

from nas.errors import ConfigError, InvalidFileError
from nas.report import history
from nas.run import read_records

EVENTS = "events.out.tfevents.*"


def write_tensorboard(folder: str | Path) -> Path:
    """Write the losses, mixing weights and evaluations of a run into its folder `tensorboard`, anew each time.

    Returns that folder, for `tensorboard --logdir`. Raises `ConfigError` where TensorBoard is not installed, and
    `InvalidFileError` where the folder is no run, or cannot be written.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise ConfigError("TensorBoard is not installed: pip install 'tmics-nas[tensorboard]'") from error
    records = read_records(folder)
    target = Path(folder) / "tensorboard"
    scalars = {
        f"{kind}/{name}": series
        for kind in ("train", "evaluate")
        for name, series in history.scalars(records, kind).items()
    }
    for label, mixing in history.mixing(records).items():
        for i, name in enumerate(mixing.candidates):
            values = [weights[i] for weights in mixing.weights]
            scalars[f"mixing/{label}/{name}"] = history.Series(mixing.steps, values)
    try:
        for old in target.glob(EVENTS):
            old.unlink()
        with SummaryWriter(str(target)) as writer:
            for name, series in scalars.items():
                for step, value in zip(series.steps, series.values, strict=True):
                    # The name of a node's edge, `2<-0`, has characters that TensorBoard would blank.
                    writer.add_scalar(name.replace("<-", "-from-"), value, step)
    except OSError as error:
        raise InvalidFileError(f"{target}: cannot be written: {error.strerror}") from error
    return target
