/** What is drawn above the pictures: contours, crosshair, measurements, the brush, and the letters in 3D. */

import { cut } from "./geometry.js";
import { fillLabels, strokeRegion } from "./contours.js";
import { drawMeasures } from "./measure.js";

const CROSS = "rgb(255 255 255 / 0.75)";
const GAP = 9; // pixels around the centre of the crosshair, so that the voxel stays visible
const ENDS = [["L", "R"], ["P", "A"], ["I", "S"]]; // of the voxels' axes

/** Draw the canvas of a stage; `stage.marks` says what. */
export function paintOver(stage) {
  const { canvas, picture, marks } = stage;
  if (canvas.width !== picture.width) canvas.width = picture.width;
  if (canvas.height !== picture.height) canvas.height = picture.height;
  const draw = canvas.getContext("2d");
  const scale = canvas.width / canvas.clientWidth;
  draw.setTransform(scale, 0, 0, scale, 0, 0);
  draw.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  for (const slice of stage.slices) {
    draw.save();
    draw.beginPath();
    draw.rect(slice.left, slice.top, slice.width, slice.height);
    draw.clip();
    if (marks.labels) drawLabels(draw, slice, marks.labels);
    if (marks.crosshair) drawCross(draw, slice, stage.voxel);
    drawMeasures(draw, slice, marks.measures ?? []);
    marks.brush?.(draw, slice, stage);
    draw.restore();
  }
  const space = stage.tiles.find(({ plane }) => plane === "space");
  if (space) drawSpace(draw, stage, space.position, marks.crosshair);
}

/** A mask: its colours, or the contour of each region, innermost last. */
function drawLabels(draw, slice, { volume, colours, regions, outline, opacity }) {
  const cutting = cut(volume, volume.labels ?? volume.img, slice.plane, slice.index);
  if (!outline) fillLabels(draw, slice, cutting, colours, opacity);
  draw.globalAlpha = Math.min(1, 0.4 + opacity);
  if (outline) for (const { members, color } of regions) strokeRegion(draw, slice, cutting, members, color);
  draw.globalAlpha = 1;
}

/** Lines of one width at whole pixels, with a gap at the voxel. */
function drawCross(draw, slice, voxel) {
  const [x, y] = slice.toScreen(voxel[slice.across], voxel[slice.up]).map((value) => Math.round(value) + 0.5);
  const [right, bottom] = [slice.left + slice.width, slice.top + slice.height];
  draw.strokeStyle = CROSS;
  draw.lineWidth = 1;
  draw.beginPath();
  for (const [x0, y0, x1, y1] of [[slice.left, y, x - GAP, y], [x + GAP, y, right, y], [x, slice.top, x, y - GAP], [x, y + GAP, x, bottom]]) {
    draw.moveTo(x0, y0);
    draw.lineTo(x1, y1);
  }
  draw.stroke();
}

/** The crosshair in 3D, and the letters around the head that do not collide. */
function drawSpace(draw, stage, position, crosshair) {
  const { view, grid, canvas } = stage;
  const place = position.map((value, side) => value * (side % 2 ? canvas.clientHeight : canvas.clientWidth));
  const scale = canvas.width / canvas.clientWidth;
  const device = place.map((value) => value * scale);
  const [matrix] = view.calculateMvpMatrix(null, device, view.scene.renderAzimuth, view.scene.renderElevation);
  const project = (voxel) => {
    const [x, y] = view.calculateScreenPoint(grid.toMm(voxel), matrix, device);
    return [x / scale, y / scale];
  };
  const middle = grid.size.map((size) => (size - 1) / 2);
  const centre = project(middle);
  const letters = ENDS.flatMap((ends, axis) =>
    ends.map((letter, end) => {
      const spot = project(middle.map((value, one) => (one === axis ? value + (2 * end - 1) * (value + 1) * 1.02 : value)));
      return { letter, spot, far: Math.hypot(spot[0] - centre[0], spot[1] - centre[1]) };
    }),
  );
  draw.save();
  draw.beginPath();
  draw.rect(...place);
  draw.clip();
  draw.fillStyle = "#000"; // the picture is partly transparent, and may lie below as well
  draw.fillRect(...place);
  draw.drawImage(stage.head, ...place);
  if (crosshair) {
    const voxel = stage.voxel;
    draw.strokeStyle = "rgb(255 255 255 / 0.45)";
    draw.lineWidth = 1;
    draw.beginPath();
    for (const axis of [0, 1, 2]) {
      draw.moveTo(...project(voxel.map((value, one) => (one === axis ? -0.5 : value))));
      draw.lineTo(...project(voxel.map((value, one) => (one === axis ? grid.size[axis] - 0.5 : value))));
    }
    draw.stroke();
  }
  draw.font = "600 13px system-ui, sans-serif";
  draw.textAlign = "center";
  draw.textBaseline = "middle";
  const set = [];
  for (const { letter, spot, far } of letters.sort((one, other) => other.far - one.far)) {
    const shown = [Math.min(place[0] + place[2] - 9, Math.max(place[0] + 9, spot[0])), Math.min(place[1] + place[3] - 9, Math.max(place[1] + 9, spot[1]))];
    if (far < 0.22 * place[3] || set.some(([x, y]) => Math.hypot(x - shown[0], y - shown[1]) < 18)) continue;
    set.push(shown);
    draw.strokeStyle = "#000";
    draw.lineWidth = 3;
    draw.strokeText(letter, ...shown);
    draw.fillStyle = "#e8e8e8";
    draw.fillText(letter, ...shown);
  }
  draw.restore();
  stage.lettersInSpace = set.length;
}
