"""Image files as people see them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, PngImagePlugin

import filmed
from nas.errors import InvalidFileError
from nas.run.images import IMAGE_SUFFIXES, read_upright, upright_size

PIXELS = np.random.default_rng(0).integers(256, size=(3, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_camera_was(tmp_path: Path, suffix: str, orientation: int) -> None:
    path, exif = tmp_path / f"a{suffix}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    upright = read_upright(path)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(np.array(upright), np.array(expected))
    assert upright_size(path) == np.array(upright).shape[:2] == ((3, 5) if orientation < 5 else (5, 3))


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    image = Image.new("L" if suffix == ".pgm" else "RGB", (5, 3), 0)
    image.save(tmp_path / f"a{suffix}")
    assert read_upright(tmp_path / f"a{suffix}").size == (5, 3)
    assert upright_size(tmp_path / f"a{suffix}") == (3, 5)


def deep(path: Path) -> Path:
    """An image of more than 8 bits per colour; Pillow opens the colour ones as plain RGB."""
    grey = np.full((2, 3), 40_000, np.uint16)
    match path.name:
        case "colour.png":
            filmed.png48(path)
        case "colour.tif" | "packed.tif":
            packed = {"compression": "zlib"} if path.name == "packed.tif" else {}
            tifffile.imwrite(path, np.stack([grey] * 3, -1), photometric="rgb", **packed)
        case "colour.ppm" | "plain.ppm":
            numbers = b"P6 3 2 65535 " + bytes(36) if path.name == "colour.ppm" else b"P3 3 2 1023 " + b"7 " * 18
            path.write_bytes(numbers)
        case _:
            Image.fromarray(grey).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("colour.png", "RGB, stored as RGB;16B"),
        ("colour.tif", "RGB, stored as RGB;16"),
        ("packed.tif", "RGB, stored as RGB;16"),
        ("colour.ppm", "RGB"),
        ("plain.ppm", "RGB"),
        ("grey.png", "I;16"),
        ("grey.tif", "I;16"),
    ],
)
def test_more_than_8_bits_are_refused_by_file_and_mode(tmp_path: Path, name: str, mode: str) -> None:
    path = deep(tmp_path / name)
    for read in (read_upright, upright_size):
        with pytest.raises(InvalidFileError, match=rf"{name}: must have 8 bits per colour, got more \(mode {mode}"):
            read(path)


def test_few_bits_are_fine(tmp_path: Path) -> None:
    (tmp_path / "one.ppm").write_bytes(b"P1 3 2 1 0 1 0 1 0")
    (tmp_path / "four.ppm").write_bytes(b"P6 3 2 15 " + bytes(range(15)) + bytes(3))
    for name in ("one.ppm", "four.ppm"):
        assert read_upright(tmp_path / name).size == (3, 2)


def test_what_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(InvalidFileError, match=r"a\.png: no such file; expected an image"):
        read_upright(path)
    path.write_text("text")
    with pytest.raises(InvalidFileError, match=r"a\.png: not an image that can be read"):
        read_upright(path)
    Image.effect_noise((40, 40), 50).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InvalidFileError, match=r"a\.png: cannot be read as an image: Image size \(1600 pixels\) exc"):
        read_upright(path)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of odd tags
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".gif"])
def test_damaged_files_are_told_in_one_line(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    path, exif = tmp_path / f"a{suffix}", Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker of cameras"
    Image.effect_noise((20, 11), 50).convert("RGB").save(
        path, **({"exif": exif} if suffix not in (".bmp", ".gif") else {})
    )
    whole, rng = path.read_bytes(), random.Random(0)
    told: list[str] = []
    for number in range(150):
        data = bytearray(whole[: rng.randrange(len(whole))] if number % 3 == 0 else whole)
        for _ in range(number % 3 and 4):
            data[rng.randrange(min(len(data), 200) if number % 3 == 1 else len(data))] = rng.randrange(256)
        path.write_bytes(data)
        for read in (read_upright, upright_size):
            try:
                read(path)
            except InvalidFileError as error:
                told.append(str(error))
    assert len(told) > 20
    assert all(line.startswith(str(path)) and "\n" not in line for line in told)
    capfd.readouterr()  # libtiff has its own say


@pytest.mark.parametrize("read", [read_upright, upright_size])
def test_a_file_that_claims_more_bytes_than_fit_into_memory(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chunk(file: object, position: int, length: int) -> bytes:
        raise MemoryError

    Image.new("RGB", (5, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(PngImagePlugin.PngStream, "chunk_IHDR", chunk)
    with pytest.raises(InvalidFileError, match="more memory"):
        read(tmp_path / "a.png")
