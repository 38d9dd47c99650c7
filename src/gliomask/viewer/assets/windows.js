/** The grey window of each sequence: presets, and what the reader has set, kept while other sequences are shown. */

const MOST = 60_000; // voxels from which quantiles are taken
export const PRESETS = [
  ["auto", "Auto", "Darkest to brightest, without the extremes of the whole image"],
  ["tumour", "Tumour", "The range of the values inside the mask, so that bright tumours keep their structure"],
  ["full", "Full", "From the smallest to the largest value of the image"],
];

export class Windows {
  constructor(viewer) {
    this.viewer = viewer;
    this.set = new Map();
  }

  /** The window of an image: `{preset, low, high}`; a window set by hand has the preset "own". */
  of(name) {
    if (!this.set.has(name)) {
      const [low, high] = this.viewer.imageOf(name).window;
      this.set.set(name, { preset: "auto", low, high });
    }
    return this.set.get(name);
  }

  /** Give a volume that was loaded its window. */
  apply(name, volume) {
    if (!this.viewer.imageOf(name)) return;
    const { low, high } = this.of(name);
    volume.cal_min = low;
    volume.cal_max = Math.max(high, low + 1e-3);
  }

  async change(low, high, preset = "own", name = this.viewer.state.image) {
    this.set.set(name, { preset, low, high: Math.max(high, low + 1e-3) });
    this.apply(name, await this.viewer.volume(name));
    this.viewer.panel.reflect(this.viewer.state);
    if (!this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        if (!this.viewer.closed) this.viewer.render().catch((error) => this.viewer.complain(error));
      });
    }
  }

  /** Drag: to the right widens the window, upwards brightens the image. */
  drag(right, down) {
    const { low, high } = this.of(this.viewer.state.image);
    const width = Math.min(1e7, Math.max(1e-3, (high - low) * 2 ** right));
    const level = (low + high) / 2 + down * (high - low);
    this.change(level - width / 2, level + width / 2);
  }

  async choose(preset) {
    const name = this.viewer.state.image;
    const volume = await this.viewer.volume(name);
    if (preset === "auto") this.change(...this.viewer.imageOf(name).window, preset);
    if (preset === "full") this.change(...rangeOf(volume.img), preset);
    if (preset === "tumour") {
      const mask = await this.maskFor(volume);
      if (mask) this.change(...rangeInside(volume.img, mask), preset);
    }
  }

  /** The labels of the first mask on the image's grid that is not empty. */
  async maskFor(volume) {
    const { scene, state } = this.viewer;
    const names = [state.shown, ...scene.masks.map(({ name }) => name)].filter((name) => name !== "none" && name !== "compare");
    for (const name of names) {
      const mask = await this.viewer.volume(name);
      const labels = mask.labels ?? mask.img;
      if (labels.length === volume.img.length && labels.some((value) => value)) return labels;
    }
    return null;
  }
}

function rangeOf(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** The half and the 99.5th percentile inside a mask, widened by a tenth. */
function rangeInside(values, labels) {
  const inside = [];
  for (let place = 0; place < labels.length; place += 1) if (labels[place]) inside.push(values[place]);
  const every = Math.max(1, Math.floor(inside.length / MOST));
  const sample = Float64Array.from(inside.filter((_, place) => place % every === 0)).sort();
  const at = (share) => sample[Math.round(share * (sample.length - 1))];
  const margin = 0.1 * (at(0.995) - at(0.005));
  return [at(0.005) - margin, at(0.995) + margin];
}
