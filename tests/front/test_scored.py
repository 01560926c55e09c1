from __future__ import annotations

from pathlib import Path

import pytest

from nas.errors import ConfigError
from nas.front.scored import named


def test_outputs_are_named_after_their_last_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("v1.2", "v1.3"):
        Path(folder).mkdir()
    Path("film.v2.mp4").touch()
    found = named(["v1.2", "v1.3/", "film.v2.mp4", "mine=v1.2"], "--outputs")
    assert found == {"v1.2": "v1.2", "v1.3": "v1.3/", "film.v2": "film.v2.mp4", "mine": "v1.2"}
    with pytest.raises(ConfigError, match=r"'v1\.2' twice"):
        named(["v1.2", str(tmp_path / "v1.2")], "--outputs")
