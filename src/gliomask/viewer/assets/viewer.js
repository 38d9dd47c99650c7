/** The viewer of a case: its state and what is drawn from it. gliomask/viewer/__init__.py describes a scene. */

import { make } from "./dom.js";
import { helpDialog, listen } from "./keys.js";
import { buildPanel } from "./panel.js";
import { savePicture } from "./picture.js";
import { buildReadout } from "./readout.js";
import { Stage, loadLibrary, loadVolume, paint } from "./stage.js";

const VIEWS = ["planes", "side", "space"];
const PLANES = ["axial", "coronal", "sagittal"];
const STEP = 0.1;

/** Build the viewer inside an element; the promise resolves when the first picture is drawn. */
export async function createViewer(element, scene, options = {}) {
  const viewer = new Viewer(element, scene, options);
  try {
    await viewer.open();
  } catch (error) {
    viewer.destroy();
    throw error;
  }
  return { destroy: () => viewer.destroy(), loaded: viewer.loaded };
}

class Viewer {
  constructor(element, scene, options) {
    this.element = element;
    this.scene = scene;
    this.options = options;
    this.volumes = new Map();
    this.stages = new Map();
    this.turn = 0;
    this.closed = false;
    this.mm = scene.start_mm;
    this.pan = [0, 0, 0, 1];
    const compared = scene.comparisons[0];
    this.state = {
      view: "planes",
      plane: "axial",
      side: "sequences",
      image: scene.images[0].name,
      blend: "",
      mix: 0.5,
      shown: scene.masks[0]?.name ?? "none",
      before: "none",
      compared: compared?.mask ?? "",
      region: compared?.region ?? "",
      regions: new Set(scene.regions.map(({ name }) => name)),
      outline: false,
      opacity: 0.5,
      crosshair: true,
      cut: 0,
      brain: 0.3,
      shortcuts: options.shortcuts !== false,
    };
  }

  async open() {
    const { element, scene, options } = this;
    element.classList.add("gliomask-viewer");
    this.status = make("p", { class: "status", role: "status" }, "Loading…");
    this.library = await loadLibrary(options.niivue ?? new URL("./niivue.js", import.meta.url).href);
    this.readout = buildReadout(scene);
    this.panel = buildPanel(this);
    this.grid = make("div", { class: "stages" });
    const shortcuts = this.shortcuts();
    this.help = helpDialog(shortcuts, () => this.state.shortcuts, (on) => (this.state.shortcuts = on));
    const head = make(
      "header",
      {},
      make("h1", {}, scene.title),
      make("p", { class: "notice" }, scene.notice),
      make("div", { class: "buttons" }, ...this.headButtons()),
    );
    const stage = make("section", { class: "stage", "aria-label": "Pictures" }, this.grid, this.readout.element, this.status);
    element.replaceChildren(head, stage, this.panel.element, this.help);
    this.unlisten = listen(element, shortcuts, () => this.state.shortcuts);
    this.resized = new ResizeObserver(() => this.arrange());
    this.resized.observe(this.grid);
    await this.render();
    this.status.textContent = "";
    this.loaded = this.loadAll();
  }

  /** Change the state and redraw. */
  set(changes) {
    Object.assign(this.state, changes);
    this.panel.reflect(this.state);
    return this.render().catch((error) => this.complain(error));
  }

  /** The tiles of the current view, each with its image and overlay. */
  tiles() {
    const { view, side, image, shown } = this.state;
    if (view !== "side") return [{ key: "main", image, overlay: shown, blend: this.state.blend }];
    if (side === "masks") return this.overlays().map((overlay) => ({ key: `side-${overlay}`, image, overlay, blend: "" }));
    return this.scene.images.map(({ name }) => ({ key: `side-${name}`, image: name, overlay: shown, blend: "" }));
  }

  /** All overlays: the masks, and where they differ. */
  overlays() {
    return [...this.scene.masks.map(({ name }) => name), ...(this.scene.comparisons.length ? ["compare"] : [])];
  }

  async render() {
    this.turn += 1;
    const { turn } = this;
    this.grid.setAttribute("aria-busy", "true");
    const tiles = this.tiles();
    const layers = await Promise.all(tiles.map((tile) => this.layersOf(tile)));
    if (turn !== this.turn || this.closed) return;
    for (const [key, { figure }] of this.stages) figure.hidden = !tiles.some((tile) => tile.key === key);
    this.grid.dataset.tiles = tiles.length;
    for (const [number, tile] of tiles.entries()) {
      const { stage, caption } = await this.stageOf(tile);
      caption.textContent = this.captionOf(tile);
      stage.setCrosshair(this.state.crosshair);
      stage.setOutline(this.state.outline ? this.state.opacity : 0);
      stage.show(this.prepare(layers[number], tile), this.mm, this.pan);
    }
    this.arrange();
    this.read();
    this.grid.setAttribute("aria-busy", "false");
  }

  /** The volumes of a tile: an image, and optionally a second image and an overlay. */
  layersOf({ image, blend, overlay }) {
    const names = [image, blend && blend !== image ? blend : "", overlay === "none" ? "" : this.overlayName(overlay)];
    return Promise.all(names.filter((name) => name).map((name) => this.volume(name)));
  }

  /** Set the appearance of the volumes of a tile. */
  prepare(layers, { overlay, blend, image }) {
    const { opacity, outline, mix, view, brain } = this.state;
    layers[0].opacity = view === "space" ? brain : 1;
    if (blend && blend !== image) layers[1].opacity = mix;
    if (overlay !== "none") {
      const top = layers[layers.length - 1];
      paint(top, this.coloursOf(overlay), { opacity, outline: outline && view !== "space" });
    }
    return layers;
  }

  /** The colour of each label: that of the innermost region that is switched on. */
  coloursOf(overlay) {
    const { scene, state } = this;
    if (overlay === "compare") return scene.agreement.map(({ value, color }) => [value, color]);
    const mask = scene.masks.find(({ name }) => name === overlay);
    const colours = new Map();
    for (const { name, color } of scene.regions) {
      if (state.regions.has(name)) for (const value of mask.regions[name] ?? []) colours.set(value, color);
    }
    return [...colours];
  }

  overlayName(overlay) {
    return overlay === "compare" ? `${this.state.compared}-${this.state.region}` : overlay;
  }

  /** A volume by name; it is loaded once. */
  volume(name) {
    if (!this.volumes.has(name)) {
      const { images, masks, comparisons } = this.scene;
      const found =
        images.find((image) => image.name === name) ??
        masks.find((mask) => mask.name === name) ??
        comparisons.find(({ mask, region }) => `${mask}-${region}` === name);
      const loading = loadVolume(this.library, found.url, found);
      loading.then((volume) => this.readout.add(name, volume), () => this.volumes.delete(name));
      this.volumes.set(name, loading);
    }
    return this.volumes.get(name);
  }

  /** Load the remaining volumes in turn, so that switching is fast and the readout has all values. */
  async loadAll() {
    for (const { name } of [...this.scene.images, ...this.scene.masks]) {
      if (this.closed) return;
      await this.volume(name).catch((error) => this.complain(error));
      this.read();
    }
    if (!this.closed) this.element.dataset.loaded = "";
  }

  async stageOf({ key }) {
    if (!this.stages.has(key)) {
      const caption = make("figcaption");
      const holder = make("div", { class: "canvas" });
      const figure = make("figure", {}, holder, caption);
      this.grid.append(figure);
      const stage = new Stage(this.library, holder, `${this.scene.title}, slices; arrow keys move the crosshair`);
      this.stages.set(key, { stage, caption, figure });
      await stage.open();
      stage.view.onLocationChange = (location) => this.moved(stage, location);
      stage.view.onMouseUp = () => this.follow(stage);
    }
    return this.stages.get(key);
  }

  captionOf({ image, blend, overlay }) {
    const { view, side } = this.state;
    if (view === "side" && side === "masks") return this.overlayLabel(overlay);
    const labels = Object.fromEntries(this.scene.images.map(({ name, label }) => [name, label]));
    const second = blend && blend !== image ? ` + ${labels[blend]}` : "";
    if (view === "side") return labels[image];
    return `${labels[image]}${second}${overlay === "none" ? "" : `, ${this.overlayLabel(overlay)}`}`;
  }

  overlayLabel(overlay) {
    if (overlay !== "compare") return this.scene.masks.find(({ name }) => name === overlay).label;
    return `${this.state.region}: ${this.scene.masks.find(({ name }) => name === this.state.compared).label} against truth`;
  }

  /** The visible stages. */
  get seen() {
    return this.tiles().map(({ key }) => this.stages.get(key)).filter((entry) => entry).map(({ stage }) => stage);
  }

  arrange() {
    for (const stage of this.seen) stage.arrange(this.state.view, this.state.plane);
  }

  moved(stage, { mm }) {
    this.mm = [...mm].slice(0, 3);
    this.follow(stage);
    this.read();
  }

  follow(stage) {
    this.pan = [...stage.view.scene.pan2Dxyzmm];
    for (const other of this.seen) stage.lead(other);
  }

  read() {
    this.readout.show(this.mm, this.state.shown === "compare" ? this.overlayName("compare") : "");
  }

  goTo(mm) {
    this.mm = [...mm];
    for (const stage of this.seen) stage.goTo(mm);
    this.read();
  }

  /** Move the crosshair by voxels in screen directions: right, up, towards the reader. */
  step(right, up, through) {
    // Radiological convention: seen from the feet, the patient's right on the left; voxel steps are towards R, A, S.
    const moves = {
      axial: [-right, up, through],
      coronal: [-right, through, up],
      sagittal: [through, -right, up],
    }[this.state.plane];
    const [stage] = this.seen;
    stage.view.moveCrosshairInVox(...moves);
    this.mm = stage.place;
    this.follow(stage);
    this.read();
  }

  zoom(factor) {
    for (const stage of this.seen) {
      stage.zoom(factor, this.state.view === "space");
      this.pan = [...stage.view.scene.pan2Dxyzmm];
    }
  }

  cut(depth) {
    this.state.cut = depth;
    for (const { stage } of this.stages.values()) stage.cut(depth);
  }

  /** Switch to the next value of a list, cyclically. */
  next(values, key) {
    return this.set({ [key]: values[(values.indexOf(this.state[key]) + 1) % values.length] });
  }

  toggleMask() {
    const { shown, before } = this.state;
    const other = before === "none" ? (this.overlays()[0] ?? "none") : before;
    return this.set(shown === "none" ? { shown: other } : { shown: "none", before: shown });
  }

  toggleRegion(name) {
    const regions = new Set(this.state.regions);
    if (!regions.delete(name)) regions.add(name);
    return this.set({ regions });
  }

  setWindow(low, high) {
    return this.volume(this.state.image).then((volume) => {
      volume.cal_min = low;
      volume.cal_max = Math.max(high, low + 1e-3);
      return this.render();
    });
  }

  save() {
    const { scene, state } = this;
    const figures = this.tiles().map(({ key }) => this.stages.get(key));
    const legend =
      state.shown === "compare"
        ? scene.agreement
        : state.shown === "none"
          ? []
          : scene.regions.filter(({ name }) => state.regions.has(name));
    return savePicture({ title: scene.title, notice: scene.notice, figures, legend, place: this.readout.placeText });
  }

  complain(error) {
    this.grid.setAttribute("aria-busy", "false");
    this.status.textContent = error.message;
    this.status.setAttribute("role", "alert");
  }

  headButtons() {
    const button = (text, label, does, keys) =>
      make("button", { type: "button", "aria-label": label, title: label, "aria-keyshortcuts": keys, onclick: does }, text);
    return [
      button("−", "Zoom out", () => this.zoom(1 / 1.25), "-"),
      button("+", "Zoom in", () => this.zoom(1.25), "+"),
      button("Fit", "Show the whole image", () => this.zoom(0), "0"),
      button("To tumour", "Go to the tumour", () => this.goTo(this.scene.start_mm), "h"),
      button("Save picture", "Save a picture (PNG)", () => this.save(), "s"),
      button("?", "Keys, mouse and touch", () => this.help.showModal(), "?"),
    ];
  }

  shortcuts() {
    const { scene } = this;
    const move = (...steps) => (event) => this.step(...steps.map((step) => step * (event.shiftKey ? 10 : 1)));
    const dim = (sign) => () => this.set({ opacity: Math.min(1, Math.max(0, this.state.opacity + sign * STEP)) });
    const letters = { WT: "w", TC: "t", ET: "e", RC: "r" };
    return [
      ...scene.images.map(({ name, label }, number) => ({
        keys: [`${number + 1}`], says: label, does: () => this.set({ image: name }),
      })),
      ...scene.regions.map(({ name, label }) => ({
        keys: [letters[name] ?? name[0].toLowerCase()], says: `${label} on or off`, does: () => this.toggleRegion(name),
      })),
      { keys: ["m"], says: "mask on or off", does: () => this.toggleMask() },
      { keys: ["n"], says: "next mask, then where they differ", does: () => this.next(["none", ...this.overlays()], "shown") },
      { keys: ["o"], says: "outlines or filled", does: () => this.set({ outline: !this.state.outline }) },
      { keys: ["["], says: "decrease the opacity of the mask", does: dim(-1) },
      { keys: ["]"], says: "increase the opacity of the mask", does: dim(1) },
      { keys: ["v"], says: "next view: planes, side by side, 3D", does: () => this.next(VIEWS, "view") },
      { keys: ["p"], says: "next plane: axial, coronal, sagittal", does: () => this.next(PLANES, "plane") },
      {
        keys: ["b"], says: "blend in the next sequence",
        does: () => this.next(["", ...scene.images.map(({ name }) => name)], "blend"),
      },
      { keys: ["ArrowLeft"], shown: ["←", "→", "↑", "↓"], says: "move the crosshair; with Shift by ten", does: move(-1, 0, 0) },
      { keys: ["ArrowRight"], does: move(1, 0, 0) },
      { keys: ["ArrowUp"], does: move(0, 1, 0) },
      { keys: ["ArrowDown"], does: move(0, -1, 0) },
      { keys: ["PageUp"], shown: ["Page up", "Page down"], says: "next or previous slice", does: move(0, 0, 1) },
      { keys: ["PageDown"], does: move(0, 0, -1) },
      { keys: ["+", "="], shown: ["+", "-", "0"], says: "zoom in, zoom out, whole image", does: () => this.zoom(1.25) },
      { keys: ["-"], does: () => this.zoom(1 / 1.25) },
      { keys: ["0"], does: () => this.zoom(0) },
      { keys: ["h"], says: "go to the tumour", does: () => this.goTo(scene.start_mm) },
      { keys: ["x"], says: "crosshair on or off", does: () => this.set({ crosshair: !this.state.crosshair }) },
      { keys: ["s"], says: "save a picture", does: () => this.save() },
      { keys: ["?"], says: "show this list", does: () => this.help.showModal() },
    ];
  }

  destroy() {
    this.closed = true;
    this.unlisten?.();
    this.resized?.disconnect();
    for (const { stage } of this.stages.values()) stage.close();
    this.stages.clear();
    this.volumes.clear();
    this.element.replaceChildren();
    delete this.element.dataset.loaded;
  }
}
