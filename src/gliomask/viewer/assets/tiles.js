/** The arrangement of the planes in a figure, with the title, the letters and the slider of each. */

import { make } from "./dom.js";
import { LETTERS, PLANES } from "./geometry.js";

const EDGE = { left: 17, right: 42, top: 24, bottom: 19 }; // pixels around a picture for letters and slider
const NAMES = { axial: "Axial", coronal: "Coronal", sagittal: "Sagittal", space: "3D" };
const SIDES = ["left", "right", "top", "bottom"];

/** The cells of a layout, `[plane, left, top, width, height]` as shares of the figure. */
export function cellsOf(layout, plane, width, height) {
  if (layout === "space") return [["space", 0, 0, 1, 1]];
  if (layout !== "planes") return [[plane, 0, 0, 1, 1]];
  const cells =
    width >= 1.15 * height && width >= 520 // in narrower ones, the names and letters of small pictures would collide
      ? [[0, 0, 0.62, 1], [0.62, 0, 0.38, 0.34], [0.62, 0.34, 0.38, 0.33], [0.62, 0.67, 0.38, 0.33]]
      : [[0, 0, 0.5, 0.5], [0.5, 0, 0.5, 0.5], [0, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]];
  return [plane, ...PLANES.filter((other) => other !== plane), "space"].map((name, place) => [name, ...cells[place]]);
}

/** The frames around the pictures of one figure. */
export class Frames {
  constructor(holder, onSlice) {
    this.holder = holder;
    this.onSlice = onSlice;
    this.frames = new Map();
  }

  /** Arrange the frames; returns the rectangle of each picture as shares of the figure. */
  arrange(layout, plane) {
    const { clientWidth: width, clientHeight: height } = this.holder;
    const cells = cellsOf(layout, plane, width, height);
    for (const [name, { element }] of this.frames) element.hidden = !cells.some(([shown]) => shown === name);
    return cells.map(([name, left, top, wide, high]) => {
      const { style } = this.frameOf(name).element;
      style.left = `${100 * left}%`;
      style.top = `${100 * top}%`;
      style.width = `${100 * wide}%`;
      style.height = `${100 * high}%`;
      const right = name === "space" ? EDGE.left : EDGE.right;
      const inner = [left * width + EDGE.left, top * height + EDGE.top, wide * width - EDGE.left - right, high * height - EDGE.top - EDGE.bottom];
      return { plane: name, position: inner.map((value, side) => Math.max(1, value) / (side % 2 ? height : width)) };
    });
  }

  frameOf(name) {
    if (!this.frames.has(name)) {
      const parts = [make("span", { class: "plane" }, NAMES[name])];
      const frame = {};
      if (name !== "space") {
        frame.count = make("output", { class: "count" });
        frame.slider = make("input", { type: "range", class: "slices", min: "1", step: "1", "aria-label": `${NAMES[name]} slice`, name: `slice-${name}` });
        frame.slider.addEventListener("input", () => this.onSlice(name, Number(frame.slider.value) - 1));
        parts.push(frame.count, frame.slider);
        parts.push(...SIDES.map((side, place) => make("span", { class: `letter ${side}` }, LETTERS[name][place])));
      }
      frame.element = make("div", { class: "tile", "data-plane": name }, ...parts);
      this.holder.append(frame.element);
      this.frames.set(name, frame);
    }
    return this.frames.get(name);
  }

  /** Show the number of a slice, counted from 1. */
  count(name, index, size) {
    const { count, slider } = this.frameOf(name);
    const text = `${index + 1} / ${size}`;
    if (count.textContent === text) return;
    count.textContent = text;
    slider.max = size;
    slider.value = index + 1;
  }

  /** Mark the plane that the keys move. */
  activate(name) {
    for (const [one, { element }] of this.frames) element.classList.toggle("active", one === name);
  }
}
