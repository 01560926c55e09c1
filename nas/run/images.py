"""Image files read upright, with 8 bits per colour; everything that reads photographs or frames uses this module."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from nas.errors import InvalidFileError, MissingFileError, NASError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm")
"""Suffixes of image files, in lower case."""

_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that undoes each EXIF orientation; those from 5 on swap height and width."""

_DAMAGED = (OSError, SyntaxError, ValueError, LookupError, OverflowError, EOFError, MemoryError, struct.error)
"""What Pillow raises for damaged files. It reads as many bytes as a PNG chunk claims to have, up to 2 GiB."""


def read_upright(path: str | Path, mode: str = "RGB") -> Image.Image:
    """Read an image, turned upright by its EXIF orientation, in a mode of Pillow.

    Raises `InvalidFileError` for a file that is missing, no image, damaged, too large to be read safely, or of more
    than 8 bits per colour: Pillow would cut or clip these without a word.
    """
    with _opened(path) as image:
        turn = _TURNS.get(_orientation(image))
        upright = image.convert(mode)
    return upright if turn is None else upright.transpose(turn)


def upright_size(path: str | Path) -> tuple[int, int]:
    """Return the (height, width) of `read_upright` from the head of the file alone; raises `InvalidFileError`."""
    with _opened(path) as image:
        return (image.width, image.height) if _orientation(image) >= 5 else (image.height, image.width)


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation that remains to be undone; 1 is upright."""
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    # The method of the base class: that for PNG files would decode the pixels, to look for EXIF data behind them.
    found = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    return found if found in _TURNS else 1


@contextmanager
def _opened(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _require_eight_bits(image, path)
                yield image
    except NASError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file; expected an image") from error
    except UnidentifiedImageError as error:
        raise InvalidFileError(f"{path}: not an image that can be read ({', '.join(IMAGE_SUFFIXES)})") from error
    except (*_DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = (
            getattr(error, "strerror", None) or " ".join(str(error).split()) or "it needs more memory than there is"
        )
        raise InvalidFileError(f"{path}: cannot be read as an image: {reason}") from error


def _require_eight_bits(image: ImageFile.ImageFile, path: str | Path) -> None:
    """Raise `InvalidFileError` for more bits. The mode does not say: Pillow calls 48-bit colour `RGB`, too."""
    stored, largest = image.mode, 0
    for tile in image.tile[:1]:  # how the pixels are to be decoded
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        stored = next((argument for argument in arguments if isinstance(argument, str)), stored)
        if tile.codec_name.startswith("ppm"):
            largest = next((argument for argument in arguments if isinstance(argument, int)), largest)
    if image.mode not in _EIGHT_BITS or ";16" in stored or largest > 255:
        mode = image.mode if stored == image.mode else f"{image.mode}, stored as {stored}"
        raise InvalidFileError(
            f"{path}: must have 8 bits per colour, got more (mode {mode}); convert it, for instance with ImageMagick's"
            " `convert IN -depth 8 OUT`"
        )
