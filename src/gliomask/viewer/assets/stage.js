/** The pictures: niivue canvases, their volumes and the crosshair; independent of the controls. */

const PLANES = ["axial", "coronal", "sagittal"];
const SLICE = { axial: 0, coronal: 1, sagittal: 2, space: 4 };
const DRAG = { pan: 3, crosshair: 8 };
const CROSSHAIR = [0.93, 0.93, 0.93, 0.85];
const THICKNESS = 1.5; // of the crosshair, in CSS pixels
const NEAR = 1.35; // enlargement in 3D, so that the head rather than its bounding box fills the canvas
const MOST_ZOOM = 8;
const INTENT_LABEL = 1002; // NIfTI's intent code for labels, for which niivue uses its label shader
const UNSEEN = 1e-6; // niivue skips a layer that is entirely transparent

/** Load niivue, whose single-file build has no exports. */
export async function loadLibrary(url) {
  if (!globalThis.niivue) await import(url);
  return globalThis.niivue;
}

/** A canvas with an image and overlays; several stages may share volumes. */
export class Stage {
  constructor(library, holder, label) {
    this.holder = holder;
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", label);
    holder.append(this.canvas);
    this.view = new library.Niivue({
      logLevel: "error",
      backColor: [0, 0, 0, 1],
      crosshairColor: CROSSHAIR,
      crosshairWidthUnit: "percent",
      crosshairGap: 3,
      fontColor: [0.85, 0.85, 0.85, 1],
      fontSizeScaling: 0.3,
      isRadiologicalConvention: true,
      showAllOrientationMarkers: true,
      isOrientationTextVisible: true,
      dragAndDropEnabled: false,
      dragMode: DRAG.pan,
      dragModePrimary: DRAG.crosshair,
      mouseEventConfig: { leftButton: { primary: DRAG.crosshair }, rightButton: DRAG.pan, centerButton: DRAG.pan },
      touchEventConfig: { singleTouch: DRAG.crosshair, doubleTouch: DRAG.pan },
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      viewModeHotKey: "",
      clipPlaneColor: [0, 0, 0, 0],
      isForceMouseClickToVoxelCenters: true,
      loadingText: "",
      tileMargin: -1,
      gradientAmount: 0,
    });
    this.crosshair = true;
  }

  async open() {
    await this.view.attachToCanvas(this.canvas);
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
    view.furthestVertexFromOrigin = view.volumeObject3D.furthestVertexFromOrigin;
    view.scene.crosshairPos = view.mm2frac([...mm], 0, true);
    view.scene.pan2Dxyzmm = [...pan];
  }

  /** Arrange the slices and draw: `planes` shows three planes and the 3D view, other layouts a single one. */
  arrange(layout, plane) {
    const { view, canvas } = this;
    if (!view.volumes.length) return;
    this.setCrosshair(this.crosshair); // its thickness depends on the size of the canvas
    const wide = canvas.clientWidth >= 1.15 * canvas.clientHeight;
    const tiles = wide
      ? [[0, 0, 0.62, 1], [0.62, 0, 0.38, 0.34], [0.62, 0.34, 0.38, 0.33], [0.62, 0.67, 0.38, 0.33]]
      : [[0, 0, 0.5, 0.5], [0.5, 0, 0.5, 0.5], [0, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]];
    const first = [plane, ...PLANES.filter((other) => other !== plane), "space"];
    view.customLayout = layout === "planes" ? first.map((name, place) => ({ sliceType: SLICE[name], position: tiles[place] })) : null;
    view.opts.sliceType = layout === "space" ? SLICE.space : SLICE[plane];
    view.drawScene();
  }

  /** Move the crosshair to a position in mm. */
  goTo(mm) {
    const { view } = this;
    view.scene.crosshairPos = view.mm2frac([...mm], 0, true);
    view.drawScene();
  }

  /** The position of the crosshair in mm. */
  get place() {
    return [...this.view.frac2mm(this.view.scene.crosshairPos, 0, true)].slice(0, 3);
  }

  /** Zoom the slices, or the head in 3D, around the crosshair; a factor of 0 shows the whole image. */
  zoom(factor, space) {
    const { view } = this;
    if (space) {
      view.scene.volScaleMultiplier = factor ? Math.min(4, Math.max(0.7, view.scene.volScaleMultiplier * factor)) : NEAR;
      view.drawScene();
      return;
    }
    const [x, y, z, old] = view.scene.pan2Dxyzmm;
    const size = factor ? Math.min(MOST_ZOOM, Math.max(1, old * factor)) : 1;
    const centre = view.frac2mm(view.scene.crosshairPos);
    const moved = [x, y, z].map((value, axis) => (size === 1 ? 0 : value + (old - size) * centre[axis]));
    view.scene.pan2Dxyzmm = [...moved, size];
    this.setCrosshair(this.crosshair);
    view.drawScene();
  }

  setCrosshair(visible) {
    this.crosshair = visible;
    this.view.opts.crosshairWidth = visible ? (100 * THICKNESS) / (Math.max(1, this.canvas.clientHeight) * Math.sqrt(this.view.scene.pan2Dxyzmm[3])) : 0;
  }

  /** Draw labels as outlines of this opacity; 0 for filled ones. */
  setOutline(opacity) {
    this.view.opts.atlasOutline = opacity;
  }

  /** Set the depth of the clip plane in 3D: 0 for none, 1 for the far side. */
  cut(depth) {
    this.view.setClipPlane(depth ? [0.5 - depth, 90, 0] : [2, 0, 0]);
  }

  /** Move the crosshair and pan of another stage to those of this one. */
  lead(other) {
    if (other === this || !other.view.volumes.length) return;
    other.view.scene.crosshairPos = other.view.mm2frac(this.view.frac2mm(this.view.scene.crosshairPos));
    other.view.scene.pan2Dxyzmm = [...this.view.scene.pan2Dxyzmm];
    other.view.drawScene();
  }

  close() {
    const { view, canvas } = this;
    view.cleanup();
    view.gl?.getExtension("WEBGL_lose_context")?.loseContext();
    canvas.remove();
  }
}

/** Load one volume of the scene. */
export async function loadVolume(library, url, { window, label } = {}) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${label ?? url}: the server answered ${answer.status}`);
  const [cal_min, cal_max] = window ?? [0, 255];
  const options = { cal_min, cal_max, colormap: "gray", ignoreZeroVoxels: true };
  return library.NVImage.loadFromUrl({ url: await answer.arrayBuffer(), name: "volume.nii.gz", ...options });
}

/** Colour a label volume; a label without a colour is invisible. */
export function paint(volume, colours, { opacity, outline }) {
  volume.opacity = outline ? UNSEEN : opacity;
  const key = JSON.stringify(colours);
  if (volume.painted === key) return;
  volume.painted = key;
  volume.hdr.intent_code = INTENT_LABEL;
  volume.labels ??= volume.img; // the values in the file, for the readout
  // Invisible labels become background; otherwise their outlines would be drawn.
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
