"""How long a brush stroke of `gliomask view --edit` takes in headless Chromium, on a case of 240 x 240 x 155 voxels.

The pointer is moved step by step along strokes on the axial slice, as a mouse moves it, with brushes of several sizes.
Two times are measured in the page for each step, from the event of the pointer: `drawn`, until the page has painted the
voxels and drawn the slices, and `frame`, until the browser begins the frame after that, which is at least a sixtieth of
a second. After the strokes follows the picture in 3D, which is drawn once when the reader pauses. Without a graphics
card, WebGL is computed by the processor (SwiftShader), which is the slowest case. Needs playwright and Chromium. The
exit status is 1 if a median frame takes more than 50 ms.

    python benchmarks/brush.py [--strokes 6] [--width 1280]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gliomask.cases import find_cases, read_mask
from gliomask.phantom import write_phantoms
from gliomask.viewer import edit_mask, read_scene, serve_scene
from gliomask.volume import write_volume

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser import open_page

MOST_MS = 50
STEPS = 24
BRUSHES = ((6, "disc"), (20, "disc"), (10, "ball"), (20, "ball"), (40, "ball"))

MEASURE = """
() => {
  window.steps = [];
  const canvas = document.querySelector("canvas.marks");
  let start = 0;
  canvas.addEventListener("pointermove", () => (start = performance.now()), true);
  canvas.addEventListener("pointermove", () => {
    const begun = start;
    requestAnimationFrame(() => {
      const step = { drawn: performance.now() - begun };
      requestAnimationFrame(() => window.steps.push({ ...step, frame: performance.now() - begun }));
    });
  });
  window.blocked = [];
  const note = (list) => window.blocked.push(...list.getEntries().map(({ duration }) => duration));
  new PerformanceObserver(note).observe({ type: "longtask" });
}
"""


def main() -> None:
    """Paint the strokes and print the times of their frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strokes", type=int, default=6, help="strokes with each brush (default %(default)s)")
    parser.add_argument("--width", type=int, default=1280, help="of the window in pixels (default %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder) / "data", 1)
        [case] = find_cases(Path(folder) / "data")
        mask = Path(folder) / f"{case.id}.nii.gz"
        assert case.mask is not None
        write_volume(mask, read_mask(case), like=case.mask)
        scene = read_scene(case, [mask])
        print(f"grid {scene.masks[0].labels.data.shape[1:]}, window {options.width} x 800")
        with (
            edit_mask(scene, mask, mask.parent, autosave_s=3600) as editing,
            serve_scene(scene, editing=editing) as served,
            open_page(served.url, (served.url, "blob:", "data:"), width=options.width) as page,
        ):
            page.wait_for_selector("#viewer[data-ready][data-loaded]")
            page.locator("canvas.marks").focus()
            page.keyboard.press("q")
            page.evaluate(MEASURE)
            slow = [paint(page, mm, shape, options.strokes) for mm, shape in BRUSHES]
            page.evaluate("window.blocked = []")
            page.mouse.down()
            page.mouse.up()
            page.wait_for_timeout(5000)
            longest = max(page.evaluate("window.blocked"), default=0)
            print(f"picture in 3D, after a pause: the page does nothing else for {longest:.0f} ms")
    raise SystemExit(any(slow))


def paint(page: Any, mm: int, shape: str, strokes: int) -> bool:
    """Paint strokes with one brush, print the times, and return whether the median frame takes too long."""
    page.locator("input[name=brush-mm]").fill(str(mm))
    page.locator(f"fieldset:has-text('Shape') input[value={shape}]").check()
    page.evaluate("window.steps = []")
    box = page.locator(".tile[data-plane=axial]").bounding_box()
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    radius = 0.25 * min(box["width"], box["height"])
    for stroke in range(strokes):
        angles = np.linspace(0, 2 * np.pi, STEPS) + stroke
        for number, angle in enumerate(angles):
            page.mouse.move(
                *(middle + radius * (1 - stroke / (2 * strokes)) * np.array([np.cos(angle), np.sin(angle)]))
            )
            if number == 0:
                page.mouse.down()
        page.mouse.up()
        page.wait_for_timeout(150)  # a reader pauses between strokes, too short for the picture in 3D
    found = page.evaluate("window.steps")
    drawn, frame = (np.array([step[name] for step in found]) for name in ("drawn", "frame"))
    words = [
        f"{name} median {np.median(ms):.1f}, 95 % {np.percentile(ms, 95):.1f}, longest {ms.max():.1f} ms"
        for name, ms in (("drawn", drawn), ("frame", frame))
    ]
    print(f"{shape} of {mm} mm, {len(found)} steps: {'; '.join(words)}")
    return bool(np.median(frame) > MOST_MS)


if __name__ == "__main__":
    main()
