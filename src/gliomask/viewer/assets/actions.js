/** What the pointer and the keys do: the crosshair, slices, zoom, grey window and measurements. */

import { AXES, cut } from "./geometry.js";
import { diametersAt, measured, perpendicular, scaleOf } from "./measure.js";

export const MEASURES = ["ruler", "diameters", "circle"];
const PER_WINDOW = 300; // pixels that double the width of the grey window

export class Actions {
  constructor(viewer) {
    this.viewer = viewer;
    this.draft = null;
  }

  tool() {
    return this.viewer.state.tool;
  }

  /** Whether a stroke of the brush is under way. It paints on the slice where it began, so that must stay in its place. */
  painting() {
    return Boolean(this.viewer.editor?.stroke);
  }

  /** Let the keys move this plane. */
  choose(plane) {
    const { viewer } = this;
    if (plane === "space" || viewer.state.active === plane) return;
    viewer.state.active = plane;
    for (const stage of viewer.seen) stage.frames.activate(plane);
  }

  /** Move the crosshair to a place of a slice. */
  pick(stage, slice, x, y) {
    this.viewer.goTo(stage.grid.toMm(stage.grid.clamp(slice.toVoxel(x, y))));
  }

  toSlice(stage, plane, index) {
    const voxel = stage.voxel;
    voxel[AXES[plane][0]] = index;
    this.choose(plane);
    this.viewer.goTo(stage.grid.toMm(stage.grid.clamp(voxel)));
  }

  stepSlice(stage, plane, steps) {
    this.toSlice(stage, plane, stage.voxel[AXES[plane][0]] + steps);
  }

  /** Move the crosshair by voxels in the directions of the active plane: right, up, and to the next slices. */
  step(right, up, through) {
    const { viewer } = this;
    const [stage] = viewer.seen;
    const [axis, across, upwards] = AXES[viewer.state.active];
    const voxel = stage.voxel;
    voxel[axis] += through;
    voxel[across] -= right; // the patient's right, and the front in sagittal slices, are on the left
    voxel[upwards] += up;
    viewer.goTo(stage.grid.toMm(stage.grid.clamp(voxel)));
  }

  maximize(plane) {
    const { viewer } = this;
    const { view } = viewer.state;
    if (view === "one" || view === "space") viewer.set({ view: this.before ?? "planes" });
    else {
      this.before = view;
      viewer.set(plane === "space" ? { view: "space" } : { view: "one", plane });
    }
  }

  zoom(factor) {
    const { viewer } = this;
    for (const stage of viewer.seen) stage.zoom(factor, viewer.state.view === "space");
    viewer.pan = [...viewer.seen[0].view.scene.pan2Dxyzmm];
  }

  zoomAt(stage, x, y, factor) {
    const slice = stage.sliceAt(x, y);
    stage.zoom(factor, stage.planeAt(x, y) === "space", slice?.toVoxel(x, y));
    this.viewer.follow(stage);
  }

  pinch(stage, before, now) {
    const slice = stage.sliceAt(now.x, now.y);
    if (slice) stage.pan(slice, slice.toVoxel(before.x, before.y), slice.toVoxel(now.x, now.y));
    if (before.size > 0) this.zoomAt(stage, now.x, now.y, now.size / before.size);
  }

  start(stage, drag) {
    if (drag.tool === "crosshair") this.pick(stage, drag.slice, drag.x, drag.y);
    if (MEASURES.includes(drag.tool)) drag.start = pointOf(drag.slice, drag.x, drag.y);
    this.viewer.editor?.start(stage, drag);
  }

  drag(stage, drag, x, y) {
    const { slice, tool } = drag;
    if (tool === "crosshair") this.pick(stage, slice, x, y);
    if (tool === "move") {
      stage.pan(slice, slice.toVoxel(drag.x, drag.y), slice.toVoxel(x, y));
      this.viewer.follow(stage);
    }
    if (tool === "window") this.viewer.windows.drag((x - drag.x) / PER_WINDOW, (y - drag.y) / PER_WINDOW);
    if (MEASURES.includes(tool)) this.sketch(stage, drag, pointOf(slice, x, y));
    this.viewer.editor?.drag(stage, drag, x, y);
  }

  finish(stage, drag) {
    if (MEASURES.includes(drag.tool)) this.measure(stage, drag);
    this.viewer.editor?.finish(stage, drag);
  }

  cancel(stage) {
    this.draft = null;
    this.viewer.measures = this.viewer.measures.filter((record) => !record.draft);
    this.viewer.editor?.cancel(stage);
    this.viewer.drawMarks();
  }

  hover(stage, x, y) {
    this.viewer.editor?.hover(stage, x, y);
  }

  /** Show the measurement that is being drawn. */
  sketch(stage, drag, end) {
    const { viewer } = this;
    const { slice, tool } = drag;
    const scale = scaleOf(slice);
    const image = cut(stage.view.volumes[0], stage.view.volumes[0].img, slice.plane, slice.index);
    const first = tool === "diameters" ? this.firstOf(slice) : null;
    const points = first ? [...first.points, drag.start, perpendicular(first.points, drag.start, end, scale)] : [drag.start, end];
    drag.record = measured(tool, slice, points, scale, image);
    viewer.measures = [...viewer.measures.filter((one) => !one.draft && one !== first), { ...drag.record, draft: true }];
    viewer.drawMarks();
    if (first) drag.first = first;
  }

  /** A first diameter on this slice, for which the second one is to be drawn. */
  firstOf(slice) {
    return this.draft && this.draft.plane === slice.plane && this.draft.index === slice.index ? this.draft : null;
  }

  measure(stage, drag) {
    const { viewer } = this;
    const { slice, tool } = drag;
    let record = drag.moved ? drag.record : null;
    if (!drag.moved && tool === "diameters") record = this.ofRegion(stage, slice, drag.start);
    viewer.measures = viewer.measures.filter((one) => !one.draft);
    if (record) viewer.measures.push(record);
    this.draft = record?.kind === "diameters" && record.points.length === 2 ? record : null;
    viewer.drawMarks();
    viewer.panel.reflect(viewer.state);
  }

  /** Both diameters of the innermost region of the mask at a voxel. */
  ofRegion(stage, slice, point) {
    const { viewer } = this;
    const name = viewer.state.shown;
    const volume = stage.view.volumes.at(-1);
    if (name === "none" || stage.view.volumes.length < 2) return null;
    const labels = cut(volume, volume.labels, slice.plane, slice.index);
    const [column, row] = point.map(Math.round);
    const value = labels.values[row * labels.width + column];
    const region = viewer.regionsOf(name).findLast(({ members }) => members.includes(value));
    const found = region && diametersAt(labels, region.members, [column, row], scaleOf(slice));
    return found ? measured("diameters", slice, found, scaleOf(slice)) : null;
  }

  /** Remove a measurement, or the last one. */
  removeMeasure(record = this.viewer.measures.at(-1)) {
    const { viewer } = this;
    viewer.measures = viewer.measures.filter((one) => one !== record);
    this.draft = null;
    viewer.drawMarks();
    viewer.panel.reflect(viewer.state);
  }
}

/** A place of a slice in its voxel coordinates, inside the image. */
function pointOf(slice, x, y) {
  const voxel = slice.toVoxel(x, y);
  return [slice.across, slice.up].map((axis) => Math.min(slice.grid.size[axis] - 0.5, Math.max(-0.5, voxel[axis])));
}
