/** The viewer of a case: its state and what is drawn from it. gliomask/viewer/__init__.py describes a scene. */

import { Actions } from "./actions.js";
import { make } from "./dom.js";
import { Editor } from "./edit.js";
import { acceptFiles } from "./files.js";
import { helpDialog, listen } from "./keys.js";
import { buildPanel } from "./panel.js";
import { savePicture } from "./picture.js";
import { listenToPointer } from "./pointer.js";
import { buildReadout } from "./readout.js";
import { headButtons, shortcutsOf } from "./shortcuts.js";
import { Stage, loadLibrary, loadVolume, paint } from "./stage.js";
import { Windows } from "./windows.js";

const BESIDE = "beside:"; // before the names of the second examination

/** Build the viewer inside an element; the promise resolves when the first picture is drawn. */
export async function createViewer(element, scene, options = {}) {
  const viewer = new Viewer(element, scene, options);
  try {
    await viewer.open();
  } catch (error) {
    viewer.destroy();
    throw error;
  }
  return { destroy: () => viewer.destroy(), save: () => viewer.editor?.settle(), loaded: viewer.loaded };
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
    this.outdated = false; // a mask was changed, so that differences are no longer shown
    this.mm = scene.start_mm;
    this.pan = [0, 0, 0, 1];
    this.measures = [];
    this.windows = new Windows(this);
    this.actions = new Actions(this);
    this.editor = scene.edit ? new Editor(this) : null;
    const compared = scene.comparisons[0];
    this.state = {
      view: scene.beside ? "pair" : "planes",
      plane: "axial",
      active: "axial",
      side: "sequences",
      image: scene.images[0].name,
      blend: "",
      mix: 0.5,
      shown: scene.edit?.mask ?? scene.masks[0]?.name ?? "none",
      before: "none",
      compared: compared?.mask ?? "",
      region: compared?.region ?? "",
      regions: new Set(scene.regions.map(({ name }) => name)),
      outline: false,
      opacity: 0.5,
      crosshair: true,
      cut: 0,
      brain: 0.3,
      tool: "crosshair",
      shortcuts: options.shortcuts !== false,
    };
  }

  async open() {
    const { element, scene, options } = this;
    element.classList.add("gliomask-viewer");
    this.status = make("p", { class: "status", role: "status" }, "Loading…");
    this.library = await loadLibrary(options.niivue ?? new URL("./niivue.js", import.meta.url).href);
    this.readout = buildReadout(scene);
    this.grid = make("div", { class: "stages" });
    this.panel = buildPanel(this);
    const shortcuts = shortcutsOf(this);
    this.help = helpDialog(shortcuts, () => this.state.shortcuts, (on) => (this.state.shortcuts = on));
    const head = make(
      "header",
      {},
      make("h1", {}, scene.title),
      make("p", { class: "notice" }, scene.notice),
      make("div", { class: "buttons" }, ...headButtons(this)),
    );
    const stage = make("section", { class: "stage", "aria-label": "Pictures" }, this.grid, this.readout.element, this.status);
    element.replaceChildren(head, stage, this.panel.element, this.help);
    this.unlisten = listen(element, shortcuts, () => this.state.shortcuts, () => this.actions.painting());
    this.refuse = acceptFiles(element, this);
    this.resized = new ResizeObserver(() => this.arrange());
    this.resized.observe(this.grid);
    await this.render();
    await this.editor?.open();
    this.status.textContent = "";
    this.loaded = this.loadAll();
  }

  /** Change the state and redraw. */
  set(changes) {
    if (changes.plane) changes = { active: changes.plane, ...changes };
    Object.assign(this.state, changes);
    this.panel.reflect(this.state);
    return this.render().catch((error) => this.complain(error));
  }

  /** Build the controls again after files were added. */
  rebuild() {
    const panel = buildPanel(this);
    this.panel.element.replaceWith(panel.element);
    this.panel = panel;
  }

  /** The views that this scene can show. */
  get views() {
    return [...(this.scene.beside ? ["pair"] : []), "planes", "one", "side", "space"];
  }

  /** The tiles of the current view, each with its image and overlay. */
  tiles() {
    const { view, side, image, shown, blend } = this.state;
    if (view === "pair") return [{ key: "main", image, overlay: shown, blend }, this.tileBeside()];
    if (view !== "side") return [{ key: "main", image, overlay: shown, blend }];
    if (side === "masks") return this.overlays().map((overlay) => ({ key: `side-${overlay}`, image, overlay, blend: "" }));
    return this.scene.images.map(({ name }) => ({ key: `side-${name}`, image: name, overlay: shown, blend: "" }));
  }

  /** The second examination: the same sequence, or its first one. */
  tileBeside() {
    const { images, masks } = this.scene.beside;
    const image = images.find(({ name }) => name === this.state.image) ?? images[0];
    const overlay = this.state.shown === "none" || !masks.length ? "none" : BESIDE + masks[0].name;
    return { key: "beside", image: BESIDE + image.name, overlay, blend: "" };
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
      this.prepare(stage, layers[number], tile);
      stage.show(layers[number], this.mm, this.pan);
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
  prepare(stage, layers, { overlay, blend, image }) {
    const { opacity, outline, mix, view, brain } = this.state;
    layers[0].opacity = view === "space" ? brain : 1;
    const blended = blend && blend !== image;
    if (blended) layers[1].opacity = mix;
    const top = layers[layers.length - 1];
    // Lines are drawn above the pictures, where a line of one width can follow the voxels of one slice.
    const edited = this.editor && overlay === this.editor.mask;
    const above = overlay !== "none" && (outline || edited) && view !== "space" && onOneGrid(top, layers[0]);
    stage.marks = { crosshair: this.state.crosshair, measures: this.measures, labels: null, brush: stage.marks.brush };
    if (overlay !== "none") {
      const colours = this.coloursOf(overlay);
      paint(top, colours, { opacity, hidden: above && blended });
      if (above) stage.marks.labels = { volume: top, colours, regions: this.regionsOf(overlay), outline, opacity };
    }
    stage.setOverlays(!above || blended);
  }

  /** Give a mask its colours before it is shown. */
  coloured(name, volume) {
    paint(volume, this.coloursOf(name), { opacity: this.state.opacity, hidden: false });
  }

  /** The colour of each label: that of the innermost region that is switched on. */
  coloursOf(overlay) {
    const colours = new Map();
    for (const { members, color } of this.regionsOf(overlay)) for (const value of members) colours.set(value, color);
    return [...colours];
  }

  /** The labels of each region that is switched on, and its colour, innermost last. */
  regionsOf(overlay) {
    const { scene, state } = this;
    if (overlay === "compare") return scene.agreement.map(({ value, color }) => ({ members: [value], color }));
    const mask = this.maskOf(overlay);
    if (mask.colours) return mask.colours.map(([value, color]) => ({ members: [value], color }));
    const regions = [...scene.regions, ...(scene.beside?.regions ?? []).filter(({ name }) => !scene.regions.some((one) => one.name === name))];
    const shown = (name) => state.regions.has(name) || !scene.regions.some((one) => one.name === name);
    return regions.filter(({ name }) => shown(name) && mask.regions[name]).map(({ name, color }) => ({ members: mask.regions[name], color }));
  }

  /** Show no more where a mask differs from others, because it was changed. */
  forgetComparisons(name) {
    const { scene, state } = this;
    const changed = ({ mask }) => mask === name || this.maskOf(name).role === "truth";
    const kept = scene.comparisons.filter((one) => !changed(one));
    if (kept.length === scene.comparisons.length) return;
    scene.comparisons = kept;
    this.outdated = true;
    if (kept.some(({ mask }) => mask === state.compared)) return;
    Object.assign(state, { compared: kept[0]?.mask ?? "", region: kept[0]?.region ?? "" });
    if (state.before === "compare") state.before = name;
    if (state.shown === "compare") this.set({ shown: name });
  }

  overlayName(overlay) {
    return overlay === "compare" ? `${this.state.compared}-${this.state.region}` : overlay;
  }

  imageOf(name) {
    return this.sourceOf(name).images.find((image) => image.name === name.replace(BESIDE, ""));
  }

  maskOf(name) {
    return this.sourceOf(name).masks.find((mask) => mask.name === name.replace(BESIDE, ""));
  }

  sourceOf(name) {
    return name.startsWith(BESIDE) ? this.scene.beside : this.scene;
  }

  /** A volume by name; it is loaded once. */
  volume(name) {
    if (!this.volumes.has(name)) {
      const found = this.imageOf(name) ?? this.maskOf(name) ?? this.scene.comparisons.find(({ mask, region }) => `${mask}-${region}` === name);
      const loading = loadVolume(this.library, found.url, found);
      loading.then((volume) => this.arrived(name, volume), () => this.volumes.delete(name));
      this.volumes.set(name, loading);
    }
    return this.volumes.get(name);
  }

  arrived(name, volume) {
    this.windows.apply(name, volume);
    if (!name.startsWith(BESIDE)) this.readout.add(name, volume);
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
      const figure = make("figure", {}, caption, holder);
      this.grid.append(figure);
      const label = `${this.scene.title}, slices; arrow keys move the crosshair, Page up and Page down change the slice`;
      const stage = new Stage(this.library, holder, label, (one, plane, index) => this.actions.toSlice(one, plane, index));
      this.stages.set(key, { stage, caption, figure });
      await stage.open();
      listenToPointer(stage, this.actions);
    }
    return this.stages.get(key);
  }

  captionOf({ key, image, blend, overlay }) {
    const { view, side } = this.state;
    if (view === "side" && side === "masks") return this.overlayLabel(overlay);
    const label = this.imageOf(image).label;
    const second = blend && blend !== image ? ` + ${this.imageOf(blend).label}` : "";
    if (view === "side") return label;
    const title = view === "pair" ? `${(key === "beside" ? this.scene.beside : this.scene).title}: ` : "";
    return `${title}${label}${second}${overlay === "none" ? "" : `, ${this.overlayLabel(overlay)}`}`;
  }

  overlayLabel(overlay) {
    if (overlay !== "compare") return this.maskOf(overlay).label;
    return `${this.state.region}: ${this.maskOf(this.state.compared).label} against truth`;
  }

  /** The visible stages. */
  get seen() {
    return this.tiles().map(({ key }) => this.stages.get(key)).filter((entry) => entry).map(({ stage }) => stage);
  }

  arrange() {
    for (const stage of this.seen) {
      stage.arrange(this.state.view, this.state.plane);
      stage.frames.activate(this.state.active);
    }
  }

  /** Draw only what lies above the pictures. */
  drawMarks() {
    for (const stage of this.seen) {
      stage.marks.measures = this.measures;
      stage.drawMarks();
    }
  }

  read() {
    this.readout.show(this.mm);
  }

  goTo(mm) {
    if (this.actions.painting()) return;
    this.mm = [...mm];
    for (const stage of this.seen) stage.goTo(mm);
    this.read();
  }

  /** Show the same part in all stages as in one. */
  follow(stage) {
    this.pan = [...stage.view.scene.pan2Dxyzmm];
    for (const other of this.seen) {
      if (other === stage) continue;
      other.view.scene.pan2Dxyzmm = [...this.pan];
      other.requestDraw();
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

  save() {
    const { scene, state } = this;
    const figures = this.tiles().map(({ key }) => this.stages.get(key));
    const shown = scene.regions.filter(({ name }) => state.regions.has(name));
    const legend = { compare: scene.agreement, none: [] }[state.shown] ?? shown;
    return savePicture({ title: scene.title, notice: scene.notice, figures, legend, place: this.readout.placeText });
  }

  complain(error) {
    this.grid.setAttribute("aria-busy", "false");
    this.status.textContent = error.message;
    this.status.setAttribute("role", "alert");
  }

  destroy() {
    this.closed = true;
    const saved = this.editor?.close();
    this.unlisten?.();
    this.refuse?.();
    this.resized?.disconnect();
    for (const { stage } of this.stages.values()) stage.close();
    this.stages.clear();
    this.volumes.clear();
    this.element.replaceChildren();
    delete this.element.dataset.loaded;
    return saved;
  }
}

/** Whether two volumes have the same voxels in the same places. */
export function onOneGrid(one, other) {
  const numbers = (volume) => [...volume.hdr.dims.slice(1, 4), ...volume.hdr.affine.flat()];
  const [first, second] = [numbers(one), numbers(other)];
  return first.every((value, place) => Math.abs(value - second[place]) < 1e-3);
}
