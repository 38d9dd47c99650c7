/** Masks on a slice: their colours, and thin contours through the middles between voxels. */

/** Fill a slice of labels with colours. */
export function fillLabels(draw, slice, { values, width, height }, colours, opacity) {
  const lut = new Uint32Array(256);
  for (const [value, colour] of colours) lut[value] = (255 << 24) | (blue(colour) << 16) | (green(colour) << 8) | red(colour);
  const pixels = new Uint32Array(values.length);
  for (let place = 0; place < values.length; place += 1) pixels[place] = lut[values[place]];
  const picture = fillLabels.picture ?? (fillLabels.picture = document.createElement("canvas"));
  picture.width = width;
  picture.height = height;
  picture.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  const [x0, y0] = slice.toScreen(-0.5, -0.5);
  const [x1, y1] = slice.toScreen(width - 0.5, height - 0.5);
  draw.save();
  draw.globalAlpha = opacity;
  draw.imageSmoothingEnabled = false;
  draw.translate(x0, y0);
  draw.scale((x1 - x0) / width, (y1 - y0) / height);
  draw.drawImage(picture, 0, 0);
  draw.restore();
}

/** Draw the contour of the voxels whose label is in a set. */
export function strokeRegion(draw, slice, cutting, members, colour) {
  draw.beginPath();
  for (const [x0, y0, x1, y1] of segments(cutting, members)) {
    draw.moveTo(...slice.toScreen(x0, y0));
    draw.lineTo(...slice.toScreen(x1, y1));
  }
  draw.strokeStyle = "rgb(0 0 0 / 0.6)";
  draw.lineWidth = 2.6;
  draw.stroke();
  draw.strokeStyle = colour;
  draw.lineWidth = 1.3;
  draw.stroke();
}

// The edges of a square of four voxels that a contour joins, for each of the sixteen cases (marching squares). Bits:
// 1 lower left, 2 lower right, 4 upper right, 8 upper left; edges: 0 lower, 1 right, 2 upper, 3 left.
const CASES = [[], [[3, 0]], [[0, 1]], [[3, 1]], [[1, 2]], [[3, 0], [1, 2]], [[0, 2]], [[3, 2]], [[2, 3]], [[2, 0]], [[0, 1], [2, 3]], [[2, 1]], [[1, 3]], [[1, 0]], [[0, 3]], []];
const MIDDLES = [[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]];

/** The pieces of the contour of a region, in voxel coordinates of the slice. */
export function segments({ values, width, height }, members) {
  const inside = new Uint8Array(256);
  for (const value of members) inside[value] = 1;
  const at = (column, row) => (column < 0 || row < 0 || column >= width || row >= height ? 0 : inside[values[row * width + column]]);
  const found = [];
  for (let row = -1; row < height; row += 1) {
    for (let column = -1; column < width; column += 1) {
      const which = at(column, row) | (at(column + 1, row) << 1) | (at(column + 1, row + 1) << 2) | (at(column, row + 1) << 3);
      for (const [from, to] of CASES[which]) {
        found.push([column + MIDDLES[from][0], row + MIDDLES[from][1], column + MIDDLES[to][0], row + MIDDLES[to][1]]);
      }
    }
  }
  return found;
}

const part = (start) => (colour) => parseInt(colour.slice(start, start + 2), 16);
const [red, green, blue] = [part(1), part(3), part(5)];
