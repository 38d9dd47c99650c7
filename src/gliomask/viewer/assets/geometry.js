/** Between voxels, millimetres and the screen. Voxels are counted from left to right, back to front and feet to head of
 * the patient (RAS), whatever the order in the file. */

export const PLANES = ["axial", "coronal", "sagittal"];
/** The axis that a plane cuts, and the axes across and up in its picture. */
export const AXES = { axial: [2, 0, 1], coronal: [1, 0, 2], sagittal: [0, 1, 2] };
/** The letters at the left, right, top and bottom edge: radiological convention, as in reports and figures. */
export const LETTERS = { axial: "RLAP", coronal: "RLSI", sagittal: "APSI" };

/** The grid of niivue's background image. */
export class Grid {
  constructor(view) {
    this.view = view;
    this.size = [...view.volumes[0].dimsRAS].slice(1, 4);
    this.spacing = [...view.volumes[0].pixDimsRAS].slice(1, 4);
  }

  /** The position of a voxel's centre in mm. */
  toMm(voxel) {
    return [...this.view.frac2mm(this.toFraction(voxel), 0, true)].slice(0, 3);
  }

  /** The voxel coordinates of a position, not rounded. */
  fromMm(mm) {
    return [...this.view.mm2frac([...mm], 0, true)].slice(0, 3).map((value, axis) => value * this.size[axis] - 0.5);
  }

  toFraction(voxel) {
    return voxel.map((value, axis) => (value + 0.5) / this.size[axis]);
  }

  /** The nearest voxel inside. */
  clamp(voxel) {
    return voxel.map((value, axis) => Math.min(this.size[axis] - 1, Math.max(0, Math.round(value))));
  }
}

/** The places in a volume's array: the first one, and the steps along the three axes. */
export function strides(volume) {
  const first = volume.img2RASstart.reduce((sum, value) => sum + value, 0);
  return { first, steps: [...volume.img2RASstep] };
}

/** A drawn slice: converts between its pixels (CSS, relative to the canvas) and voxels. */
export class Slice {
  constructor(view, plane, drawn, scale, grid, index) {
    const [left, top, width, height] = [...drawn.leftTopWidthHeight].map((value) => value / scale);
    [this.axis, this.across, this.up] = AXES[plane];
    Object.assign(this, { plane, left, top, width, height, grid, index });
    const ends = [[-0.5, -0.5, -0.5], grid.size.map((size) => size - 0.5)].map((voxel) => [...view.frac2mm(grid.toFraction(voxel))]);
    const pixel = (mm, start, extent, from, length) => from + ((mm - start) / extent) * length;
    this.x = ends.map((mm) => pixel(mm[this.across], drawn.leftTopMM[0], drawn.fovMM[0], left, width));
    this.y = ends.map((mm) => pixel(mm[this.up], drawn.leftTopMM[1], drawn.fovMM[1], top + height, -height));
  }

  /** Where in-plane voxel coordinates lie on the canvas. */
  toScreen(across, up) {
    const place = (value, [start, end], size) => start + ((value + 0.5) / size) * (end - start);
    return [place(across, this.x, this.grid.size[this.across]), place(up, this.y, this.grid.size[this.up])];
  }

  /** The voxel coordinates at a place of the canvas, not rounded. */
  toVoxel(x, y) {
    const back = (value, [start, end], size) => ((value - start) / (end - start)) * size - 0.5;
    const voxel = [0, 0, 0];
    voxel[this.axis] = this.index;
    voxel[this.across] = back(x, this.x, this.grid.size[this.across]);
    voxel[this.up] = back(y, this.y, this.grid.size[this.up]);
    return voxel;
  }

  contains(x, y) {
    return x >= this.left && x <= this.left + this.width && y >= this.top && y <= this.top + this.height;
  }

  /** Pixels per voxel across and up. */
  get pixels() {
    return [Math.abs(this.x[1] - this.x[0]) / this.grid.size[this.across], Math.abs(this.y[1] - this.y[0]) / this.grid.size[this.up]];
  }
}

/** The values of one slice of a volume, row by row, `across` running fastest. */
export function cut(volume, values, plane, index) {
  const [axis, across, up] = AXES[plane];
  const { first, steps } = strides(volume);
  const size = volume.dimsRAS.slice(1, 4);
  const found = new values.constructor(size[across] * size[up]);
  let place = 0;
  for (let row = 0; row < size[up]; row += 1) {
    let from = first + index * steps[axis] + row * steps[up];
    for (let column = 0; column < size[across]; column += 1, from += steps[across]) found[place++] = values[from];
  }
  return { values: found, width: size[across], height: size[up] };
}
