/** Measurements on a slice: a ruler, the two diameters of RANO, and the mean in a circle. */

/** The plane of a slice: `[a, b, c]` turn voxel coordinates `[across, up]` into mm, `[a x + b y, c y]`, whatever the
 * angles of the grid are. */
export function scaleOf({ grid, across, up }) {
  const origin = grid.toMm([0, 0, 0]);
  const step = (axis) => grid.toMm([0, 1, 2].map((one) => (one === axis ? 1 : 0))).map((value, one) => value - origin[one]);
  const dot = (one, other) => one.reduce((sum, value, place) => sum + value * other[place], 0);
  const [right, upwards] = [step(across), step(up)];
  const a = Math.sqrt(dot(right, right));
  const b = dot(right, upwards) / a;
  return [a, b, Math.sqrt(dot(upwards, upwards) - b * b)];
}

export const toFlat = ([x, y], [a, b, c]) => [a * x + b * y, c * y];
const fromFlat = ([x, y], [a, b, c]) => [(x - (b * y) / c) / a, y / c];

/** The distance of two points in mm. */
export function distance(one, other, scale) {
  const [[x0, y0], [x1, y1]] = [toFlat(one, scale), toFlat(other, scale)];
  return Math.hypot(x1 - x0, y1 - y0);
}

/** A measurement of a slice; `text` is shown beside it. */
export function measured(kind, slice, points, scale, image) {
  const record = { kind, plane: slice.plane, index: slice.index, points };
  if (kind === "ruler") return { ...record, text: `${distance(points[0], points[1], scale).toFixed(1)} mm` };
  if (kind === "diameters") {
    const lengths = [0, 2].filter((start) => start < points.length).map((start) => distance(points[start], points[start + 1], scale));
    const product = lengths.length > 1 ? ` = ${(lengths[0] * lengths[1]).toFixed(0)} mm²` : "";
    return { ...record, text: `${lengths.map((length) => length.toFixed(1)).join(" × ")} mm${product}` };
  }
  const { mean, deviation, count } = within(image, points, scale);
  const area = count * scale[0] * scale[2];
  const text = count ? `mean ${digits(mean)}, SD ${digits(deviation)}, ${area.toFixed(0)} mm²` : "no voxel";
  return { ...record, text, edge: circle(points, scale) };
}

const digits = (value) => (Math.abs(value) < 10 ? value.toFixed(2) : value.toFixed(1));

/** The mean and standard deviation of the voxels whose centre lies in a circle: its centre, and a point on its edge. */
export function within({ values, width, height }, [centre, edge], scale) {
  const radius = distance(centre, edge, scale);
  let count = 0;
  let sum = 0;
  let squares = 0;
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      if (distance(centre, [column, row], scale) > radius) continue;
      const value = values[row * width + column];
      count += 1;
      sum += value;
      squares += value * value;
    }
  }
  const mean = sum / count;
  return { mean, deviation: Math.sqrt(Math.max(0, squares / count - mean * mean)), count };
}

/** The corners of a polygon that looks like the circle. */
function circle([centre, edge], scale) {
  const [x, y] = toFlat(centre, scale);
  const radius = distance(centre, edge, scale);
  const turns = Array.from({ length: 60 }, (_, place) => (place * Math.PI) / 30);
  return turns.map((turn) => fromFlat([x + radius * Math.cos(turn), y + radius * Math.sin(turn)], scale));
}

/** The longest diameter of the piece of a region at a voxel, and the longest chord of its convex outline perpendicular
 * to it, as four points; null where the voxel is not in the region. A diameter runs between the middles of the outer
 * edges of voxels, as in the report. */
export function diametersAt({ values, width, height }, members, [column, row], scale) {
  const inside = piece(values, width, height, new Set(members), column, row);
  if (!inside) return null;
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[y * width + x];
  const points = [];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (!inside[y * width + x]) continue;
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) if (!at(x + dx, y + dy)) points.push(toFlat([x + dx / 2, y + dy / 2], scale));
    }
  }
  const corners = hull(points);
  let best = [corners[0], corners[0], -1];
  for (const one of corners) {
    for (const other of corners) {
      const length = Math.hypot(one[0] - other[0], one[1] - other[1]);
      if (length > best[2] + 1e-9) best = [one, other, length];
    }
  }
  const chord = longestAcross(corners, best[0], best[1]);
  return [best[0], best[1], ...chord].map((point) => fromFlat(point, scale));
}

/** The voxels joined to one by edges or corners. */
function piece(values, width, height, members, column, row) {
  if (!members.has(values[row * width + column])) return null;
  const inside = new Uint8Array(values.length);
  const waiting = [[column, row]];
  inside[row * width + column] = 1;
  while (waiting.length) {
    const [x, y] = waiting.pop();
    for (let ny = Math.max(0, y - 1); ny <= Math.min(height - 1, y + 1); ny += 1) {
      for (let nx = Math.max(0, x - 1); nx <= Math.min(width - 1, x + 1); nx += 1) {
        const place = ny * width + nx;
        if (inside[place] || !members.has(values[place])) continue;
        inside[place] = 1;
        waiting.push([nx, ny]);
      }
    }
  }
  return inside;
}

/** The corners of the convex hull, in order (Andrew's monotone chain). */
function hull(points) {
  const sorted = [...points].sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  const turn = (a, b, c) => (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
  const half = (some) => {
    const chain = [];
    for (const point of some) {
      while (chain.length > 1 && turn(chain.at(-2), chain.at(-1), point) <= 1e-9) chain.pop();
      chain.push(point);
    }
    return chain.slice(0, -1);
  };
  return [...half(sorted), ...half(sorted.reverse())];
}

/** The width of a convex outline is linear between corners, so the longest chord passes through one. */
function longestAcross(corners, start, end) {
  const length = Math.hypot(end[0] - start[0], end[1] - start[1]);
  const [ax, ay] = [(end[0] - start[0]) / length, (end[1] - start[1]) / length];
  const turned = corners.map(([x, y]) => [(x - start[0]) * ax + (y - start[1]) * ay, (y - start[1]) * ax - (x - start[0]) * ay]);
  const side = (sign) => turned.filter(([, height]) => sign * height >= -1e-9).sort((one, other) => one[0] - other[0]);
  const [upper, lower] = [side(1), side(-1)];
  let best = [0, 0, 0];
  for (const [along] of turned) {
    const [high, low] = [heightAt(upper, along), heightAt(lower, along)];
    if (high - low > best[1] - best[2]) best = [along, high, low];
  }
  const back = (along, across) => [start[0] + along * ax - across * ay, start[1] + along * ay + across * ax];
  return [back(best[0], best[1]), back(best[0], best[2])];
}

function heightAt(line, along) {
  for (let place = 1; place < line.length; place += 1) {
    const [x0, y0] = line[place - 1];
    const [x1, y1] = line[place];
    if (along >= x0 - 1e-9 && along <= x1 + 1e-9) return x1 - x0 < 1e-9 ? y1 : y0 + ((along - x0) / (x1 - x0)) * (y1 - y0);
  }
  return 0;
}

/** The end of a second diameter from `start` to `end`, turned so that it is perpendicular to the first one. */
export function perpendicular([first, second], start, end, scale) {
  const [[x0, y0], [x1, y1], [sx, sy], [ex, ey]] = [first, second, start, end].map((point) => toFlat(point, scale));
  const length = Math.hypot(x1 - x0, y1 - y0) || 1;
  const [ax, ay] = [-(y1 - y0) / length, (x1 - x0) / length];
  const reach = (ex - sx) * ax + (ey - sy) * ay;
  return fromFlat([sx + reach * ax, sy + reach * ay], scale);
}

/** Draw the measurements that belong to a slice. */
export function drawMeasures(draw, slice, records) {
  draw.font = "600 13px system-ui, sans-serif";
  draw.textBaseline = "bottom";
  draw.textAlign = "left";
  for (const record of records) {
    if (record.plane !== slice.plane || record.index !== slice.index) continue;
    const points = record.points.map(([x, y]) => slice.toScreen(x, y));
    draw.beginPath();
    if (record.edge) {
      for (const point of record.edge) draw.lineTo(...slice.toScreen(...point));
      draw.closePath();
    } else {
      for (let place = 0; place + 1 < points.length; place += 2) {
        draw.moveTo(...points[place]);
        draw.lineTo(...points[place + 1]);
      }
    }
    draw.strokeStyle = "#000";
    draw.lineWidth = 3.4;
    draw.stroke();
    draw.strokeStyle = "#ffe14d";
    draw.lineWidth = 1.6;
    draw.stroke();
    const fits = (text) => draw.measureText(text).width < slice.width - 10;
    const text = [record.text, record.text.split(/ = |, /)[0]].find(fits) ?? "";
    const wide = draw.measureText(text).width;
    const x = Math.min(Math.max(points[1][0] + 6, slice.left + 4), slice.left + slice.width - wide - 6);
    const y = Math.min(Math.max(points[1][1] - 4, slice.top + 18), slice.top + slice.height - 4);
    if (!text) continue;
    draw.fillStyle = "rgb(0 0 0 / 0.7)";
    draw.fillRect(x - 3, y - 17, wide + 6, 19);
    draw.fillStyle = "#ffe14d";
    draw.fillText(text, x, y);
  }
}
