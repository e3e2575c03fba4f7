"""The README's two pictures, made of files in `samples/`: strips of samples, and the first screen of a comparison.

`python -m benchmarks.readme_pictures` writes `samples/families.png`, cut pixel for pixel from the grids in the page of
the bake-off (`samples/bakeoff-fashion-mnist.html`) and beside it, and `samples/comparison-page.png`, for which it needs
Chromium, its driver and selenium.
"""

import base64
import io
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SAMPLES = Path(__file__).parent.parent / "samples"
PAGE = SAMPLES / "bakeoff-fashion-mnist.html"
SIDE, FACTOR_IN_GRID, FACTOR = (
    28,
    3,
    2,
)  # of Fashion-MNIST; how much grids enlarge it, and how much the strips do
LABELS, COLUMNS = 152, 12
PAPER, INK, SOFT, GAP = "#ffffff", "#1c1d21", "#5c5f68", "#808080"


@dataclass(frozen=True)
class Strip:
    """One row of the picture: the name of its family, where its grid is, and which tiles of it are shown."""

    family: str
    preset: str
    grid: str
    """A file in `samples/`, or the words that describe a picture of the page of the bake-off."""
    tiles: tuple[int, ...] = tuple(range(COLUMNS))
    """Numbers of tiles in reading order; of a grid of samples the first ones, which nobody chose."""


_PAIRS = tuple(4 * i + part for i in range(COLUMNS // 2) for part in (0, 2))
"""Of a grid of (input, L1 alone, with the discriminator, truth): input and prediction."""

STRIPS = (
    Strip("real images", "Fashion-MNIST", "samples of real test images"),
    Strip("autoregressive", "pixelcnn", "samples of pixelcnn"),
    Strip("VAE", "vae", "samples of vae"),
    Strip("hierarchical VAE", "hvae", "samples of hvae"),
    Strip("VQ and transformer", "vq-transformer", "samples of vq-transformer"),
    Strip("VQ and GAN", "vqgan", "samples of vqgan"),
    Strip("GAN", "gan", "samples of gan"),
    Strip("diffusion", "ddpm", "samples of ddpm"),
    Strip("flow matching", "flow", "samples of flow"),
    Strip("shortcut model", "shortcut, 4 network calls", "samples of shortcut"),
    Strip("image to image", "input, prediction, ...", "image-to-image-fashion-mnist.png", _PAIRS),
)


def read_grid(grid: str) -> Image.Image:
    """The picture that `Strip.grid` names. Raises `ValueError` where the page has none of this description."""
    if grid.endswith(".png"):
        return Image.open(SAMPLES / grid).convert("RGB")
    source = r'<img src="data:image/png;base64,([^"]+)"[^>]* alt="' + re.escape(grid) + '"'
    found = re.search(source, PAGE.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{PAGE} has no picture described as {grid!r}")
    return Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")


def tiles_of(grid: Image.Image, numbers: tuple[int, ...]) -> list[Image.Image]:
    """The tiles of these numbers at the size of the data, in RGB: every pixel of a grid stands for a block."""
    pitch = SIDE * FACTOR_IN_GRID + 1  # a grey line lies between tiles
    columns = grid.width // pitch
    cut = []
    for number in numbers:
        x, y = 1 + number % columns * pitch, 1 + number // columns * pitch
        tile = grid.crop((x, y, x + pitch - 1, y + pitch - 1))
        small = tile.resize((SIDE, SIDE), Image.Resampling.NEAREST)
        if small.resize(tile.size, Image.Resampling.NEAREST).tobytes() != tile.tobytes():
            raise ValueError(
                f"tile {number} is no image of {SIDE}x{SIDE} pixels enlarged {FACTOR_IN_GRID} times"
            )
        cut.append(small)
    return cut


def families() -> Image.Image:
    """One strip of samples per row, enlarged by a whole factor, with its name on the left."""
    side = SIDE * FACTOR
    picture = Image.new("RGB", (LABELS + COLUMNS * (side + 1) + 1, len(STRIPS) * (side + 1) + 1), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((LABELS, 0, picture.width, picture.height), fill=GAP)
    name, small = ImageFont.load_default(15), ImageFont.load_default(12)
    for row, strip in enumerate(STRIPS):
        top = row * (side + 1) + 1
        draw.text((8, top + side // 2 - 3), strip.family, fill=INK, font=name, anchor="ls")
        draw.text((8, top + side // 2 + 13), strip.preset, fill=SOFT, font=small, anchor="ls")
        for column, tile in enumerate(tiles_of(read_grid(strip.grid), strip.tiles)):
            large = tile.resize((side, side), Image.Resampling.NEAREST)
            picture.paste(large, (LABELS + column * (side + 1) + 1, top))
    return picture


def comparison_page(width: int = 1200, scale: float = 1.5) -> Image.Image | None:
    """The page down to the words below its first table, `scale` pixels to each of CSS; None without a browser.

    A page so wide shows the whole table; the scale keeps it sharp where it is shown smaller.
    """
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        return None
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --hide-scrollbars"
    size = (f"--window-size={width},1600", f"--force-device-scale-factor={scale}")
    for flag in (*flags.split(), *size):
        options.add_argument(flag)
    with tempfile.TemporaryDirectory() as home:
        service = webdriver.ChromeService(driver, env={**os.environ, "HOME": home})
        browser = webdriver.Chrome(options=options, service=service)
        try:
            browser.get(PAGE.as_uri())
            last = "document.querySelector('#overview').closest('.wide').nextElementSibling"
            script = f"return {last}.getBoundingClientRect().bottom"
            bottom = float(browser.execute_script(script))
            shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        finally:
            browser.quit()
    return shot.crop((0, 0, shot.width, round((bottom + 6) * scale)))


def main() -> int:
    families().save(SAMPLES / "families.png", optimize=True)
    page = comparison_page()
    if page is None:
        print("no Chromium with its driver: samples/comparison-page.png stays as it is", file=sys.stderr)
        return 1
    page.save(SAMPLES / "comparison-page.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
