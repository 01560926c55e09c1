from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import filmed
from nas.errors import InvalidFileError
from search_spaces.picture_files import list_images, read_image


def test_a_picture_is_scaled_and_cut_at_the_centre(tmp_path: Path) -> None:
    array = np.zeros((8, 16, 3), np.uint8)
    array[:, 4:12] = (10, 20, 30)  # the middle half of a wide picture
    Image.fromarray(array).save(tmp_path / "wide.png")
    image = read_image(tmp_path / "wide.png", (3, 4, 4))
    assert image[:, 1:3, 1:3].flatten(1).unique(dim=1).flatten().tolist() == [10, 20, 30]
    assert image.shape == (3, 4, 4)
    assert read_image(tmp_path / "wide.png", (1, 8, 16)).shape == (1, 8, 16)


def test_channels_rows_and_columns_keep_their_places(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "any.png")
    assert np.array_equal(read_image(tmp_path / "any.png", (3, 5, 7)).numpy(), array.transpose(2, 0, 1))


def test_a_photograph_is_turned_as_its_camera_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("L", (6, 3)).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as file:
        assert file.size == (6, 3)
    array = np.zeros((3, 6), np.uint8)
    array[:, 0] = 255  # its left becomes the top
    Image.fromarray(array).save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png", (1, 6, 3))[0, :, 0].tolist() == [255, 0, 0, 0, 0, 0]


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("text")
    with pytest.raises(InvalidFileError, match=r"text.png: not an image that can be read"):
        read_image(text, (3, 4, 4))
    filmed.png48(tmp_path / "deep.png")
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "grey.png")
    for name, mode in (("deep.png", "RGB, stored as RGB;16B"), ("grey.png", "I;16")):
        with pytest.raises(InvalidFileError, match=rf"{name}: must have 8 bits per colour, got more \(mode {mode}"):
            read_image(tmp_path / name, (1, 4, 4))


def test_pictures_of_a_folder_come_by_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", "._a.jpg", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG"]
    (tmp_path / "empty").mkdir()
    for path, what in (
        (tmp_path / "empty", "empty .*got none"),
        (tmp_path / "no", "no such"),
        (tmp_path / "a.jpg", "a.jpg .*got a file"),
    ):
        with pytest.raises(InvalidFileError, match=what):
            list_images(path)
