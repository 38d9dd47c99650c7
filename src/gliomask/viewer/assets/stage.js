/** The pictures: niivue draws the images and the head in 3D; a canvas above it has lines, marks and the pointer. */

import { Grid, Slice } from "./geometry.js";
import { paintOver } from "./overlay.js";
import { Frames } from "./tiles.js";

const SLICE = { axial: 0, coronal: 1, sagittal: 2, space: 4 };
const NEAR = 1.35; // enlargement in 3D, so that the head rather than its bounding box fills the canvas
const MOST_ZOOM = 12;
const INTENT_LABEL = 1002; // NIfTI's intent code for labels, for which niivue uses its label shader
const [UINT8, FLOAT32] = [2, 16]; // NIfTI's codes of types
const COLOURED = [128, 2304]; // RGB and RGBA, to which slope and intercept do not apply
const UNSEEN = 1e-6; // niivue skips a layer that is entirely transparent

/** Load niivue, whose single-file build has no exports. */
export async function loadLibrary(url) {
  if (!document.createElement("canvas").getContext("webgl2")) {
    throw new Error(
      "this browser has no WebGL 2, with which the images are drawn. Switch on hardware acceleration in its settings, or use a current Firefox, Chrome, Edge or Safari",
    );
  }
  if (!globalThis.niivue) await import(url);
  return globalThis.niivue;
}

/** A figure with an image and overlays; several stages may share volumes. */
export class Stage {
  constructor(library, holder, label, onSlice) {
    this.holder = holder;
    this.picture = document.createElement("canvas");
    this.picture.setAttribute("aria-hidden", "true");
    this.canvas = document.createElement("canvas");
    this.canvas.className = "marks";
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", label);
    holder.append(this.picture, this.canvas);
    this.frames = new Frames(holder, (plane, index) => onSlice(this, plane, index));
    this.view = new library.Niivue({
      logLevel: "error",
      backColor: [0, 0, 0, 1],
      crosshairWidth: 0,
      show3Dcrosshair: false,
      fontSizeScaling: 0.3,
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      isOrientationTextVisible: false,
      isOrientCube: false,
      dragAndDropEnabled: false,
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      viewModeHotKey: "",
      clipPlaneColor: [0, 0, 0, 0],
      loadingText: "",
      tileMargin: 0,
      gradientAmount: 0,
    });
    this.marks = {};
    this.slices = [];
    this.waiting = false;
    this.changes = 0; // of the volumes
    this.head = document.createElement("canvas"); // the last picture in 3D
  }

  async open() {
    await this.view.attachToCanvas(this.picture);
    this.picture.tabIndex = -1; // the pointer and the keys belong to the canvas above it
    this.view.scene.volScaleMultiplier = NEAR;
  }

  /** Set the volumes, the image first; `arrange` draws them. */
  show(volumes, mm, pan) {
    const { view } = this;
    const { cal_min, cal_max, opacity } = volumes[0];
    const base = JSON.stringify([volumes[0].id, volumes.length, cal_min, cal_max, opacity]);
    view.volumes = volumes;
    view.back = volumes[0];
    view.overlays = volumes.slice(1);
    view.refreshColormaps();
    // If the image is unchanged, only the overlays are updated, which is much faster.
    volumes.forEach((volume, layer) => (layer || base !== this.base) && view.refreshLayers(volume, layer));
    this.base = base;
    this.changes += 1;
    view.furthestVertexFromOrigin = view.volumeObject3D.furthestVertexFromOrigin;
    this.grid = new Grid(view);
    view.scene.crosshairPos = this.fractionOf(mm);
    view.scene.pan2Dxyzmm = [...pan];
  }

  /** Update one overlay whose voxels have changed. */
  refresh(volume) {
    const layer = this.view.volumes.indexOf(volume);
    if (layer > 0) this.view.refreshLayers(volume, layer);
    this.changes += 1;
  }

  /** Arrange the slices and draw: `planes` shows three planes and the 3D view, other layouts a single one. */
  arrange(layout, plane) {
    if (!this.view.volumes.length) return;
    this.view.resizeListener(); // niivue notices a new size later than the viewer does
    this.tiles = this.frames.arrange(layout, plane);
    this.draw();
  }

  /** Draw with the next frame. */
  requestDraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (!this.closed) this.draw();
    });
  }

  draw() {
    const { view, picture } = this;
    if (!this.grid || !this.tiles || !picture.clientWidth) return;
    const space = this.tiles.find(({ plane }) => plane === "space");
    const { renderAzimuth, renderElevation, volScaleMultiplier, clipPlaneDepthAziElevs } = view.scene;
    const shown = JSON.stringify([renderAzimuth, renderElevation, volScaleMultiplier, clipPlaneDepthAziElevs, space, picture.width, picture.height, this.changes]);
    // The picture in 3D takes most of the time, and the crosshair does not change it.
    const kept = space && shown === this.headShown ? [space] : [];
    const layout = this.tiles.filter((tile) => !kept.includes(tile)).map(({ plane, position }) => ({ sliceType: SLICE[plane], position }));
    if (layout.length) {
      view.customLayout = layout;
      view.drawScene();
    }
    if (space && !kept.length) this.keepHead(space.position, shown);
    const scale = picture.width / picture.clientWidth;
    const voxel = this.voxel;
    this.slices = this.tiles.flatMap(({ plane }) => {
      const drawn = view.screenSlices.find(({ axCorSag }) => axCorSag === SLICE[plane]);
      return drawn && plane !== "space" ? [new Slice(view, plane, drawn, scale, this.grid, voxel[SLICE_AXIS[plane]])] : [];
    });
    for (const { plane, axis, index } of this.slices) this.frames.count(plane, index, this.grid.size[axis]);
    this.drawMarks();
  }

  /** Draw the canvas above the pictures with the next frame. */
  requestMarks() {
    if (this.waitingMarks) return;
    this.waitingMarks = true;
    requestAnimationFrame(() => {
      this.waitingMarks = false;
      if (!this.closed && this.tiles) this.drawMarks();
    });
  }

  /** Keep the picture in 3D that was just drawn. */
  keepHead(position, shown) {
    const { head, picture } = this;
    const [left, top, width, height] = position.map((value, side) => Math.round(value * (side % 2 ? picture.height : picture.width)));
    head.width = width;
    head.height = height;
    head.getContext("2d").drawImage(picture, left, top, width, height, 0, 0, width, height);
    this.headShown = shown;
  }

  /** Draw only the canvas above the pictures. */
  drawMarks() {
    paintOver(this);
  }

  /** The slice at a place of the canvas, or undefined. */
  sliceAt(x, y) {
    return this.slices.find((slice) => slice.contains(x, y));
  }

  /** The plane whose cell contains a place of the canvas, "space" for 3D. */
  planeAt(x, y) {
    const { clientWidth, clientHeight } = this.canvas;
    const inside = ([left, top, width, height]) =>
      x >= left * clientWidth && x <= (left + width) * clientWidth && y >= top * clientHeight && y <= (top + height) * clientHeight;
    return this.tiles?.find(({ position }) => inside(position))?.plane;
  }

  /** Move the crosshair to a position in mm. */
  goTo(mm) {
    this.view.scene.crosshairPos = this.fractionOf(mm);
    this.requestDraw();
  }

  fractionOf(mm) {
    return this.grid.toFraction(this.grid.clamp(this.grid.fromMm(mm)));
  }

  /** The voxel at the crosshair. */
  get voxel() {
    return this.grid.clamp([...this.view.scene.crosshairPos].map((value, axis) => value * this.grid.size[axis] - 0.5));
  }

  /** Zoom the slices around a voxel, or the head in 3D; a factor of 0 shows the whole image. */
  zoom(factor, space, voxel = this.voxel) {
    const { view } = this;
    if (space) {
      view.scene.volScaleMultiplier = factor ? Math.min(4, Math.max(0.7, view.scene.volScaleMultiplier * factor)) : NEAR;
      this.requestDraw();
      return;
    }
    const [x, y, z, old] = view.scene.pan2Dxyzmm;
    const size = factor ? Math.min(MOST_ZOOM, Math.max(1, old * factor)) : 1;
    const centre = view.frac2mm(this.grid.toFraction(voxel));
    const moved = [x, y, z].map((value, axis) => (size === 1 ? 0 : value + (old - size) * centre[axis]));
    view.scene.pan2Dxyzmm = [...moved, size];
    this.requestDraw();
  }

  /** Move the picture so that a voxel comes to lie where another one was. */
  pan(slice, from, to) {
    const { pan2Dxyzmm } = this.view.scene;
    for (const axis of [slice.across, slice.up]) {
      pan2Dxyzmm[axis] += (to[axis] - from[axis]) * this.grid.spacing[axis] * pan2Dxyzmm[3];
    }
    this.requestDraw();
  }

  /** Rotate the head in 3D, in degrees. */
  rotate(right, up) {
    const { scene } = this.view;
    scene.renderAzimuth -= right;
    scene.renderElevation = Math.min(90, Math.max(-90, scene.renderElevation + up));
    this.requestDraw();
  }

  /** Whether niivue shows the overlays in the slices too, or only in 3D, as the canvas above draws them. */
  setOverlays(visible) {
    this.view.overlayAlphaShader = visible ? 1 : 0;
  }

  /** Set the depth of the clip plane in 3D: 0 for none, 1 for the far side. */
  cut(depth) {
    this.view.setClipPlane(depth ? [0.5 - depth, 90, 0] : [2, 0, 0]);
    this.requestDraw();
  }

  close() {
    this.closed = true;
    this.view.cleanup();
    this.view.gl?.getExtension("WEBGL_lose_context")?.loseContext();
    this.holder.replaceChildren();
  }
}

const SLICE_AXIS = { axial: 2, coronal: 1, sagittal: 0 };

/** Load one volume of the scene. */
export async function loadVolume(library, url, { window, label } = {}) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${label ?? url}: the server answered ${answer.status}`);
  return volumeOf(library, await answer.arrayBuffer(), "volume.nii.gz", window);
}

/** Make a volume of the content of a file; `img` has the values after the slope and the intercept of the header. */
export async function volumeOf(library, content, name, window) {
  const [cal_min, cal_max] = window ?? [0, 255];
  return scaled(await library.NVImage.loadFromUrl({ url: content, name, cal_min, cal_max, colormap: "gray", ignoreZeroVoxels: true }));
}

/** Apply slope and intercept, which niivue leaves to its shaders, so that all who read `img` see true values. */
function scaled(volume) {
  const { hdr, img } = volume;
  const { scl_slope: slope, scl_inter: intercept } = hdr;
  if (!slope || (slope === 1 && !intercept) || COLOURED.includes(hdr.datatypeCode)) return volume;
  volume.img = new Float32Array(img.length);
  for (let place = 0; place < img.length; place += 1) volume.img[place] = img[place] * slope + (intercept || 0);
  Object.assign(hdr, { scl_slope: 1, scl_inter: 0, datatypeCode: FLOAT32, numBitsPerVoxel: 32 });
  return volume;
}

/** Colour a label volume; a label without a colour is invisible. */
export function paint(volume, colours, { opacity, hidden }) {
  volume.opacity = hidden ? UNSEEN : opacity;
  const key = JSON.stringify(colours);
  if (volume.painted === key) return;
  volume.painted = key;
  Object.assign(volume.hdr, { intent_code: INTENT_LABEL, datatypeCode: UINT8, numBitsPerVoxel: 8 });
  volume.labels ??= Uint8Array.from(volume.img); // the values in the file, for the readout
  // Invisible labels become background.
  const seen = new Uint8Array(256);
  const lut = new Uint8ClampedArray(256 * 4);
  for (const [value, colour] of colours) {
    seen[value] = value;
    lut.set([...rgb(colour), 255], 4 * value);
  }
  volume.img = volume.labels.map((value) => seen[value]);
  volume.colormapLabel = { lut, min: 0, max: 255 };
}

/** The voxel at a position, as indices of the volume, and its value; null outside. */
export function readVoxel(volume, mm) {
  const index = solve(volume.hdr.affine, mm).map(Math.round);
  const size = volume.hdr.dims.slice(1, 4);
  if (index.some((value, axis) => value < 0 || value >= size[axis])) return null;
  return { index, value: (volume.labels ?? volume.img)[index[0] + size[0] * (index[1] + size[1] * index[2])] };
}

function rgb(colour) {
  return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
}

/** The voxel coordinates of a position under an affine, by Cramer's rule. */
function solve(affine, mm) {
  const columns = [0, 1, 2].map((column) => [0, 1, 2].map((row) => affine[row][column]));
  const right = [0, 1, 2].map((row) => mm[row] - affine[row][3]);
  const determinant = (a, b, c) =>
    a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
  const whole = determinant(...columns);
  return [0, 1, 2].map((axis) => determinant(...columns.map((column, place) => (place === axis ? right : column))) / whole);
}
