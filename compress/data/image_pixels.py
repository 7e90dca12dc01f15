"""One picture: from the bytes of a file to what the model takes, as `[data.image]` says.

1. Pictures have 8 bits a channel and one frame. They are converted to the recipe's mode; transparency is dropped.
2. They are taken as stored: a rotation that the camera only noted (EXIF) is not carried out.
3. `bilinear` and `bicubic` are Pillow's: where a picture shrinks, the kernel grows with it, so that nothing is skipped
   (antialiasing); the result is rounded to whole numbers.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.files import reading
from compress.errors import DataError
from compress.recipe import ImageConfig
from compress.registry import require

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000
MAX_SIDE = 4096
CHANNELS = {"RGB": 3, "L": 1}
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_ORIENTATION = 0x0112


def check_image(image: ImageConfig, where: str) -> None:
    """Checks what the recipe's schema cannot know of `[data.image]`.

    Raises:
        DataError: If a size is out of bounds, or there is not one mean and one deviation a channel.
    """
    if not all(1 <= side <= MAX_SIDE for side in image.size):
        raise DataError(
            f"{where}: data.image.size must be a height and a width from 1 to {MAX_SIDE}; got {list(image.size)}",
            "give what the model was trained on, such as [224, 224].",
        )
    channels = CHANNELS[image.mode]
    for key in ("mean", "std"):
        values = getattr(image, key)
        if values and len(values) != channels:
            raise DataError(
                f'{where}: data.image.{key} has {len(values)} numbers, and mode = "{image.mode}" has '
                f"{channels} channel{'s' if channels > 1 else ''}",
                "give one number a channel.",
            )
    if any(value <= 0 for value in image.std):
        raise DataError(
            f"{where}: data.image.std must be above 0; got {list(image.std)}", "it divides; leave it out for 1."
        )


def decode(content: bytes, path: Path) -> Any:
    """Decodes a picture completely.

    Args:
        content: The bytes of the file.
        path: The file, for the message.

    Returns:
        A loaded Pillow image of 8 bits a channel.

    Raises:
        DataError: If it is no picture of a known format, damaged, too large, animated, or of more than 8 bits.
    """
    pillow = require("PIL.Image", why="a folder of images")
    with reading(path, "an image"), warnings.catch_warnings():
        # Pillow warns of odd metadata, which is not read here, and of large pictures, which are refused below.
        warnings.simplefilter("ignore")
        try:
            picture = pillow.open(io.BytesIO(content), formats=FORMATS)
        except pillow.DecompressionBombError as error:
            raise _too_large(path) from error
        except pillow.UnidentifiedImageError as error:
            raise DataError(
                f"{path}: not a picture in a known format, or its beginning is damaged",
                f"known: {', '.join(FORMATS)}; the name does not matter.",
            ) from error
        if picture.width * picture.height > MAX_PIXELS:
            raise _too_large(path)
        # Phones store a second, smaller picture behind the first one (MPO); that is no animation.
        if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
            raise DataError(f"{path}: {picture.n_frames} frames or pages", "store each as a file of its own.")
        if picture.mode not in _EIGHT_BITS:
            raise DataError(
                f"{path}: the pixels are of Pillow's mode {picture.mode!r}, not 8 bits a channel",
                "convert it to 8 bits with the range that the model was trained on.",
            )
        picture.load()
    return picture


def rotated(picture: Any) -> bool:
    """Whether the metadata ask for a rotation or a mirror image."""
    try:
        return int(picture.getexif().get(_ORIENTATION, 1)) not in (0, 1)
    # Metadata that cannot be read ask for nothing.
    except Exception:
        return False


def to_input(picture: Any, image: ImageConfig, path: Path) -> NDArray[np.float32]:
    """Prepares a decoded picture as the recipe says: mode, resize, crop, scale, mean, deviation.

    Args:
        picture: What `decode` returned.
        image: `[data.image]`.
        path: The file, for the message.

    Returns:
        float32 `[channels, height, width]`.

    Raises:
        DataError: If nothing may be resized and the picture has another size.
    """
    with warnings.catch_warnings():
        # A palette with transparency: Pillow proposes another mode, and transparency is dropped on purpose.
        warnings.simplefilter("ignore")
        picture = picture.convert(image.mode)
    picture = _cropped(_resized(picture, image, path), image)
    values: NDArray[np.float32] = np.array(picture, np.float32).reshape(*image.size, CHANNELS[image.mode])
    values *= np.float32(image.scale)
    if image.mean:
        values -= np.array(image.mean, np.float32)
    if image.std:
        values /= np.array(image.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _resized(picture: Any, image: ImageConfig, path: Path) -> Any:
    height, width = image.size
    if image.resize == "none":
        fits = picture.height >= height and picture.width >= width
        if not fits or (image.crop == "none" and (picture.height, picture.width) != image.size):
            least = "" if image.crop == "none" else "at least "
            raise DataError(
                f"{path}: the picture has height {picture.height} and width {picture.width}; with "
                f'data.image.resize = "none" it must have {least}{height} and {width}',
                "resize it in the file, or set data.image.resize.",
            )
        return picture
    if image.crop == "center":
        factor = max(height / picture.height, width / picture.width)
        height, width = (max(1, round(factor * side)) for side in (picture.height, picture.width))
        _check_stretched(height, width, path)
    method = require("PIL.Image").Resampling[image.resize.upper()]
    return picture.resize((width, height), method)


def _cropped(picture: Any, image: ImageConfig) -> Any:
    height, width = image.size
    top, left = (picture.height - height) // 2, (picture.width - width) // 2
    return picture.crop((left, top, left + width, top + height))


def _check_stretched(height: int, width: int, path: Path) -> None:
    """A picture of 1 x 60,000 pixels grows to 224 x 13,440,000 when its shorter side becomes 224."""
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{path}: it is so long and thin that it would be resized to {height} x {width}",
            'crop it in the file, or set data.image.crop = "none".',
        )


def _too_large(path: Path) -> DataError:
    return DataError(f"{path}: more than {MAX_PIXELS:,} pixels", "store it smaller; the model sees far fewer pixels.")
