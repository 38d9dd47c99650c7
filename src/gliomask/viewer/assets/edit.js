/** Correct a mask: brush strokes are made here, other operations by the server, which also saves. */

import { AXES, strides } from "./geometry.js";
import { loadVolume } from "./stage.js";

const MOST_STEPS = 50; // that can be undone
const AT_WORK_S = 60; // a reader who does nothing for longer is not counted as working
const BRUSHES = ["brush", "eraser"];
const PAUSE_MS = 900; // after which the head in 3D is drawn, because that takes longer than a stroke may

export class Editor {
  constructor(viewer) {
    this.viewer = viewer;
    const { tables, mask, seconds, target, state, saved, autosave_s: autosave, url = "edit/" } = viewer.scene.edit;
    Object.assign(this, { mask, tables, autosave, seconds, target, state, url });
    // Null if there is no correction yet, and empty if nobody knows when it was saved.
    this.begun = saved === null ? "Not changed yet." : `The correction ${target}${saved && `, saved on ${new Date(saved).toLocaleString()},`} is continued.`;
    this.window = crypto.randomUUID?.() ?? `${Math.random()}`;
    this.options = { region: Object.keys(tables)[0], mm: 6, ball: false, reach: 2 };
    this.thresholds = new Map(); // by sequence, as far as the reader has set them
    this.busy = false; // an operation is in progress
    this.saving = null;
    this.done = [];
    this.undone = [];
    this.dirty = 0; // when the first unsaved change was made
    this.said = "";
    this.findings = [];
    this.acted = performance.now();
  }

  async open() {
    this.volume = await this.viewer.volume(this.mask);
    this.viewer.coloured(this.mask, this.volume);
    this.measure();
    await this.claim(false);
    this.timer = setInterval(() => this.tick(), 250);
    this.leave = () => navigator.sendBeacon(this.address("close", {}));
    this.warn = (event) => (this.dirty || this.saving) && event.preventDefault(); // until the server has it
    addEventListener("pagehide", this.leave);
    addEventListener("beforeunload", this.warn);
  }

  /** Save what was not saved yet; the promise resolves to whether all was saved. */
  async settle() {
    while (this.dirty || this.saving) {
      await this.save();
      if (this.problem) return false;
    }
    return true;
  }

  /** Save what was not saved yet, and let other windows edit; the promise resolves to whether all was saved. */
  async close() {
    clearInterval(this.timer);
    await this.settle();
    removeEventListener("pagehide", this.leave);
    removeEventListener("beforeunload", this.warn);
    this.leave?.();
    return !this.dirty;
  }

  /** Ask for the right to edit, and read the mask again if it was changed elsewhere. */
  async claim(take) {
    try {
      const { state } = await (await this.ask("open", { take })).json();
      const changed = state !== this.state && (await this.reload());
      this.state = state;
      this.say(changed ? "The mask as another window saved it. Undo brings back what was shown here." : take ? "This window edits now." : this.begun);
    } catch (error) {
      this.say(error.message, error);
    }
  }

  /** Show the mask that was saved last; what was shown before can be brought back with undo. */
  async reload() {
    const { viewer } = this;
    this.cancel();
    const saved = await loadVolume(viewer.library, viewer.maskOf(this.mask).url, { label: "the mask" });
    this.dirty = 0;
    return this.keep(...this.replace(saved.img), false);
  }

  get values() {
    return this.volume.labels;
  }

  tick() {
    const now = performance.now();
    if (!document.hidden && now - this.acted < 1000 * AT_WORK_S) this.seconds += 0.25;
    if (this.dirty && now - this.dirty > 1000 * this.autosave && !this.saving) this.save();
  }

  // Brush strokes

  start(stage, drag) {
    if (!BRUSHES.includes(drag.tool) || this.busy) return;
    // The labels before the stroke, and the part of the grid that it touches.
    this.stroke = { before: this.values.slice(), low: [Infinity, Infinity, Infinity], high: [-1, -1, -1] };
    clearTimeout(this.later);
    this.last = null;
    this.drag(stage, drag, drag.x, drag.y);
  }

  drag(stage, drag, x, y) {
    this.hover(stage, x, y);
    if (!this.stroke || !BRUSHES.includes(drag.tool)) return;
    const voxel = stage.grid.clamp(drag.slice.toVoxel(x, y));
    const steps = this.last ? Math.max(...voxel.map((value, axis) => Math.abs(value - this.last[axis]))) : 1;
    for (let step = 1; step <= steps; step += 1) {
      const share = step / steps;
      this.stamp(stage.grid, drag.slice, voxel.map((value, axis) => Math.round(this.last ? this.last[axis] + share * (value - this.last[axis]) : value)), drag.tool);
    }
    this.last = voxel;
    for (const one of this.viewer.seen) one.requestMarks();
  }

  /** Change the voxels whose centres are within half the size of the brush of a voxel. */
  stamp({ size, spacing }, { axis }, centre, tool) {
    const { values, stroke } = this;
    const table = this.tables[this.options.region][tool === "brush" ? "add" : "remove"];
    const { first, steps } = strides(this.volume);
    for (const [dx, dy, dz] of this.rows(spacing, axis)) {
      const [y, z] = [centre[1] + dy, centre[2] + dz];
      if (y < 0 || y >= size[1] || z < 0 || z >= size[2]) continue;
      const [x0, x1] = [Math.max(0, centre[0] - dx), Math.min(size[0] - 1, centre[0] + dx)];
      let place = first + x0 * steps[0] + y * steps[1] + z * steps[2];
      for (let x = x0; x <= x1; x += 1, place += steps[0]) values[place] = table[values[place]];
      [x0, y, z].forEach((value, one) => (stroke.low[one] = Math.min(stroke.low[one], value)));
      [x1, y, z].forEach((value, one) => (stroke.high[one] = Math.max(stroke.high[one], value)));
    }
  }

  /** The rows of voxels of the brush: how far each reaches to both sides, and where it lies. */
  rows(spacing, axis) {
    const { mm, ball } = this.options;
    const key = JSON.stringify([mm, ball, spacing, axis]);
    if (this.shape?.key === key) return this.shape.rows;
    const radius = mm / 2 + 1e-6;
    const [rx, ry, rz] = spacing.map((one, place) => (place === axis && !ball ? 0 : Math.floor(radius / one)));
    const rows = [];
    for (let z = -rz; z <= rz; z += 1) {
      for (let y = -ry; y <= ry; y += 1) {
        const left = radius ** 2 - (y * spacing[1]) ** 2 - (z * spacing[2]) ** 2;
        if (left >= 0) rows.push([Math.min(rx, Math.floor(Math.sqrt(left) / spacing[0])), y, z]);
      }
    }
    this.shape = { key, rows };
    return rows;
  }

  finish() {
    if (!this.stroke) return;
    const { before, low, high } = this.stroke;
    const { first, steps } = strides(this.volume);
    const found = [];
    for (let z = low[2]; z <= high[2]; z += 1) {
      for (let y = low[1]; y <= high[1]; y += 1) {
        let place = first + low[0] * steps[0] + y * steps[1] + z * steps[2];
        for (let x = low[0]; x <= high[0]; x += 1, place += steps[0]) if (before[place] !== this.values[place]) found.push(place);
      }
    }
    this.stroke = null;
    const places = Uint32Array.from(found);
    this.keep(places, Uint8Array.from(places, (place) => before[place]), Uint8Array.from(places, (place) => this.values[place]));
  }

  cancel() {
    if (!this.stroke) return;
    this.values.set(this.stroke.before);
    if (this.stroke.high[0] >= 0) this.touch(); // a part of it may have been saved
    this.stroke = null;
  }

  hover(stage, x, y) {
    const shown = BRUSHES.includes(this.viewer.state.tool) && stage.sliceAt(x, y);
    for (const one of this.viewer.seen) one.marks.brush = null;
    if (shown) stage.marks.brush = (draw, slice) => slice.plane === shown.plane && this.circle(draw, slice, x, y);
    for (const one of this.viewer.seen) one.requestMarks();
  }

  circle(draw, slice, x, y) {
    const [wide, high] = slice.pixels;
    const radius = this.options.mm / 2;
    draw.beginPath();
    draw.ellipse(x, y, (radius / slice.grid.spacing[slice.across]) * wide, (radius / slice.grid.spacing[slice.up]) * high, 0, 0, 2 * Math.PI);
    draw.strokeStyle = "#fff";
    draw.lineWidth = 1.5;
    draw.setLineDash(this.viewer.state.tool === "eraser" ? [4, 3] : []);
    draw.stroke();
    draw.setLineDash([]);
  }

  // Steps

  /** Keep a step, so that it can be undone. */
  keep(places, before, after, unsaved = true) {
    if (places.length) {
      this.done.push({ places, before, after });
      this.done.splice(0, this.done.length - MOST_STEPS);
      this.undone = [];
      if (unsaved) this.touch();
      this.viewer.forgetComparisons(this.mask);
    }
    this.redraw();
    return places.length > 0;
  }

  /** Replace all labels; returns where they changed, and the labels before and after. */
  replace(labels) {
    const { values } = this;
    const found = [];
    for (let place = 0; place < labels.length; place += 1) if (labels[place] !== values[place]) found.push(place);
    const places = Uint32Array.from(found);
    const before = Uint8Array.from(places, (place) => values[place]);
    const after = Uint8Array.from(places, (place) => labels[place]);
    values.set(labels);
    return [places, before, after];
  }

  undo() {
    this.move(this.done, this.undone, "before");
  }

  redo() {
    this.move(this.undone, this.done, "after");
  }

  move(from, to, which) {
    const step = this.stroke || this.busy ? null : from.pop();
    if (!step) return;
    step.places.forEach((place, number) => (this.values[place] = step[which][number]));
    to.push(step);
    this.touch();
    this.viewer.forgetComparisons(this.mask);
    this.redraw();
  }

  touch() {
    this.acted = performance.now();
    this.dirty ||= performance.now();
    this.findings = [];
    this.say("Changed, not saved yet.");
  }

  /** Count the volumes of the regions as they are shown. */
  measure() {
    const counts = new Uint32Array(256);
    for (const value of this.values) counts[value] += 1;
    const [[a, b, c], [d, e, f], [g, h, i]] = this.volume.hdr.affine;
    const mm3 = Math.abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)); // of a voxel, also if axes are oblique
    const mask = this.viewer.maskOf(this.mask);
    for (const [name, members] of Object.entries(mask.regions)) {
      mask.volumes_ml[name] = Math.round(mm3 * members.reduce((sum, value) => sum + counts[value], 0)) / 1000;
    }
  }

  redraw() {
    const { viewer } = this;
    this.volume.painted = "";
    this.measure();
    viewer.panel.reflect(viewer.state);
    for (const stage of viewer.seen) stage.requestMarks();
    clearTimeout(this.later);
    this.later = setTimeout(() => !viewer.closed && !this.stroke && viewer.render().catch((error) => viewer.complain(error)), PAUSE_MS);
  }

  /** The thresholds on the shown sequence: those that were set, or else mean and 2 standard deviations of the region. */
  get bounds() {
    const { image } = this.viewer.state;
    if (this.thresholds.has(image)) return this.thresholds.get(image);
    const inside = new Uint8Array(256);
    for (const value of this.viewer.maskOf(this.mask).regions[this.options.region]) inside[value] = 1;
    const shown = this.viewer.seen[0].view.volumes[0].img;
    let [count, sum, squares] = [0, 0, 0];
    for (let place = 0; place < shown.length; place += 1) {
      if (!inside[this.values[place]]) continue;
      count += 1;
      sum += shown[place];
      squares += shown[place] ** 2;
    }
    const mean = count ? sum / count : 0;
    const spread = count ? 2 * Math.sqrt(Math.max(0, squares / count - mean ** 2)) : 0;
    return { low: Number((mean - spread).toPrecision(4)), high: Number((mean + spread).toPrecision(4)) };
  }

  bound(change) {
    this.thresholds.set(this.viewer.state.image, { ...this.bounds, ...change });
  }

  /** Let the server do an operation on the chosen region. */
  async apply(operation) {
    const { viewer, options } = this;
    if (this.busy || this.stroke) return;
    const [stage] = viewer.seen;
    const plane = viewer.state.active;
    const wanted = { operation, region: options.region, image: viewer.state.image, mm: operation === "smooth" ? 1 : options.reach, ...this.bounds };
    this.busy = true; // strokes that are made meanwhile would be lost
    this.say("Working…");
    try {
      const answer = await this.ask("apply", { ...wanted, ...this.place(stage, plane) }, this.values);
      const labels = new Uint8Array(await answer.arrayBuffer());
      if (!this.keep(...this.replace(labels))) this.say("The operation changes nothing here.");
    } catch (error) {
      this.say(error.message, error);
    }
    this.busy = false;
    viewer.panel.reflect(viewer.state);
  }

  /** The crosshair and the active slice, in the axes of the file's array. */
  place(stage, plane) {
    const { first, steps } = strides(this.volume);
    const size = this.volume.hdr.dims.slice(1, 4);
    const indices = (voxel) => {
      const offset = first + voxel.reduce((sum, value, axis) => sum + value * steps[axis], 0);
      return [offset % size[0], Math.floor(offset / size[0]) % size[1], Math.floor(offset / (size[0] * size[1]))];
    };
    const seed = indices(stage.voxel);
    const step = steps[AXES[plane][0]];
    const axis = [1, size[0], size[0] * size[1]].indexOf(Math.abs(step));
    return { seed, axis, index: seed[axis], step: Math.sign(step) };
  }

  // Saving

  /** Save, after a save that is in progress. */
  save(finish = false) {
    this.saving = (this.saving ?? Promise.resolve()).then(() => this.send(finish)).then(() => (this.saving = null));
    return this.saving;
  }

  async send(finish) {
    this.dirty = 0;
    this.say("Saving…");
    try {
      const answer = await this.ask("save", { seconds: this.seconds, finish }, this.values);
      const record = await answer.json();
      this.state = record.state;
      const change = ([name, { ml_before: before, ml_after: after }]) => `${name}: ${before.toFixed(2)} mL before, ${after.toFixed(2)} mL now`;
      this.findings = [...Object.entries(record.regions).map(change), ...(record.findings ?? [])];
      this.viewer.element.dispatchEvent(new CustomEvent("gliomask-saved"));
      if (!this.dirty) this.say(`${finish ? "Finished and checked" : "Saved"} at ${new Date().toLocaleTimeString()}: ${this.target}`);
    } catch (error) {
      this.dirty = performance.now(); // tried again after the usual time
      this.say(`NOT SAVED: ${error.message} The changes are still in this page.`, error);
    }
  }

  takeOver() {
    return this.claim(true);
  }

  say(text, problem = null) {
    this.said = text;
    this.problem = problem;
    this.viewer.panel.reflect(this.viewer.state);
  }

  address(name, wanted) {
    return `${this.url}${name}?request=${encodeURIComponent(JSON.stringify({ window: this.window, state: this.state, ...wanted }))}`;
  }

  async ask(name, wanted, voxels = null) {
    const headers = voxels ? { "Content-Encoding": "gzip", "Content-Type": "application/octet-stream" } : {};
    const body = voxels ? await new Response(new Blob([voxels]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer() : null;
    let answer;
    try {
      answer = await fetch(this.address(name, wanted), { method: "POST", headers, body });
    } catch {
      throw new Error("The server does not answer; is it still running?");
    }
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => ({}));
    const error = new Error(said.message ?? said.detail ?? `The server answered ${answer.status}.`);
    error.status = answer.status;
    throw error;
  }
}
