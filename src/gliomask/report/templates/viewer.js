// Three planes through one case. Images and masks are bytes in LPS order, X varies fastest; each layer has its own canvas.
(async () => {
  "use strict";
  const content = JSON.parse(document.getElementById("viewer-content").textContent);
  const viewer = document.getElementById("viewer");
  const [nx, ny, nz] = content.shape;
  const SCALE = Math.max(3, Math.round(480 / Math.max(nx, ny, nz)));

  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  let images, masks, probabilities;
  try {
    images = await Promise.all(content.images.map((image) => unpack(image.data)));
    masks = await unpack(content.masks);
    probabilities = await Promise.all(content.probabilities.map((one) => unpack(one.data)));
  } catch (error) {
    document.getElementById("viewer-failed").hidden = false;
    return;
  }

  const whole = nx * ny;
  const PLANES = [
    { name: "axial", axis: 2, width: nx, height: ny, column: 1, row: nx, first: (i) => i * whole, across: 0, down: 1, up: false, letters: ["R", "L", "A", "P"] },
    { name: "coronal", axis: 1, width: nx, height: nz, column: 1, row: -whole, first: (i) => i * nx + (nz - 1) * whole, across: 0, down: 2, up: true, letters: ["R", "L", "S", "I"] },
    { name: "sagittal", axis: 0, width: ny, height: nz, column: nx, row: -whole, first: (i) => i + (nz - 1) * whole, across: 1, down: 2, up: true, letters: ["A", "P", "S", "I"] },
  ];
  const state = { at: [...content.start], style: "outline", image: 0, probability: null, cross: true, level: 50, width: 100, shown: new Set(content.regions.map((r) => r.name)) };
  const scratch = document.createElement("canvas");

  const element = (name, properties, parent) => parent.appendChild(Object.assign(document.createElement(name), properties));

  // Read one value per pixel of a slice.
  const each = (plane, data, use) => {
    let pixel = 0;
    for (let row = 0, start = plane.first(state.at[plane.axis]); row < plane.height; row++, start += plane.row)
      for (let column = 0, place = start; column < plane.width; column++, place += plane.column) use(pixel++, data[place]);
  };
  // Colour one slice, then draw it onto a layer at the layer's size.
  const paint = (plane, layer, smooth, data, colour) => {
    scratch.width = plane.width;
    scratch.height = plane.height;
    const pen = scratch.getContext("2d");
    const picture = pen.createImageData(plane.width, plane.height);
    each(plane, data, (pixel, value) => colour(picture.data, 4 * pixel, value));
    pen.putImageData(picture, 0, 0);
    const target = clear(layer);
    target.imageSmoothingEnabled = smooth;
    target.drawImage(scratch, 0, 0, layer.width, layer.height);
  };
  const clear = (layer) => {
    const pen = layer.getContext("2d");
    pen.clearRect(0, 0, layer.width, layer.height);
    return pen;
  };
  const outline = (plane, layer, bit, colour) => {
    const pen = clear(layer);
    const inside = new Uint8Array(plane.width * plane.height);
    each(plane, masks, (pixel, value) => { inside[pixel] = (value >> bit) & 1; });
    pen.beginPath();
    for (let row = 0; row < plane.height; row++)
      for (let column = 0; column < plane.width; column++) {
        const pixel = row * plane.width + column;
        if (!inside[pixel]) continue;
        const [left, top, right, bottom] = [column * SCALE, row * SCALE, (column + 1) * SCALE, (row + 1) * SCALE];
        if (column === 0 || !inside[pixel - 1]) { pen.moveTo(left, top); pen.lineTo(left, bottom); }
        if (column === plane.width - 1 || !inside[pixel + 1]) { pen.moveTo(right, top); pen.lineTo(right, bottom); }
        if (row === 0 || !inside[pixel - plane.width]) { pen.moveTo(left, top); pen.lineTo(right, top); }
        if (row === plane.height - 1 || !inside[pixel + plane.width]) { pen.moveTo(left, bottom); pen.lineTo(right, bottom); }
      }
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.lineCap = "square";
    pen.stroke();
  };

  const draw = (plane) => {
    paint(plane, plane.base, true, images[state.image], (to, at, value) => {
      const share = (value - 1) / 126; // of the range that the page contains; 0 is outside of the brain
      const grey = value ? Math.min(255, Math.max(0, Math.round(255 * (0.5 + (100 * share - state.level) / state.width)))) : 0;
      to[at] = to[at + 1] = to[at + 2] = grey;
      to[at + 3] = 255;
    });
    if (state.probability === null) clear(plane.likely);
    else
      paint(plane, plane.likely, false, probabilities[state.probability], (to, at, value) => {
        const share = value / 250;
        to[at] = 255;
        to[at + 1] = Math.round(240 * share);
        to[at + 3] = Math.round(190 * share); // improbable voxels are transparent
      });
    content.regions.forEach((region, bit) => {
      const layer = plane.layers[bit];
      layer.hidden = !state.shown.has(region.name);
      if (layer.hidden) return;
      if (state.style === "outline") return outline(plane, layer, bit, region.colour);
      // Voxels of a shown inner region are painted by that region.
      let inner = 0;
      content.regions.forEach((other, place) => { if (place > bit && state.shown.has(other.name)) inner |= 1 << place; });
      const [red, green, blue] = [1, 3, 5].map((at) => parseInt(region.colour.slice(at, at + 2), 16));
      paint(plane, layer, false, masks, (to, at, value) => {
        to[at] = red; to[at + 1] = green; to[at + 2] = blue;
        to[at + 3] = (value >> bit) & 1 && !(value & inner) ? 115 : 0;
      });
    });
    const pen = clear(plane.cross);
    if (state.cross) {
      const size = (axis) => content.shape[axis];
      const x = (state.at[plane.across] + 0.5) * SCALE;
      const y = (plane.up ? size(plane.down) - state.at[plane.down] - 0.5 : state.at[plane.down] + 0.5) * SCALE;
      pen.strokeStyle = "rgb(255 255 255 / 0.45)";
      pen.setLineDash([4, 5]);
      pen.beginPath();
      pen.moveTo(x, 0); pen.lineTo(x, plane.cross.height); pen.moveTo(0, y); pen.lineTo(plane.cross.width, y);
      pen.stroke();
    }
    const [start, step] = content.places_mm[PLANES.indexOf(plane)];
    plane.output.value = `${"xyz"[plane.axis]} = ${(start + step * state.at[plane.axis]).toFixed(0)} mm`;
    plane.slider.setAttribute("aria-valuetext", plane.output.value);
  };
  let waiting = false;
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; PLANES.forEach(draw); });
  };
  const move = (axis, index) => {
    state.at[axis] = Math.min(content.shape[axis] - 1, Math.max(0, Math.round(index)));
    for (const plane of PLANES) if (plane.axis === axis) plane.slider.value = state.at[axis];
    redraw();
  };

  const room = viewer.querySelector(".planes");
  for (const plane of PLANES) {
    const figure = element("figure", { className: "plane" }, room);
    figure.style.flex = `${plane.width} 1 0`;
    const stack = element("div", { className: "stack" }, figure);
    stack.style.aspectRatio = `${plane.width} / ${plane.height}`;
    stack.setAttribute("role", "img");
    stack.setAttribute("aria-label", `${plane.name} slice`);
    const layer = (kind) => {
      const canvas = element("canvas", { width: plane.width * SCALE, height: plane.height * SCALE }, stack);
      canvas.dataset.layer = kind;
      return canvas;
    };
    plane.base = layer("image");
    plane.likely = layer("probability");
    plane.layers = content.regions.map((region) => layer(region.name));
    plane.cross = layer("cross");
    ["left", "right", "top", "bottom"].forEach((side, number) => element("span", { className: side, textContent: plane.letters[number] }, stack));
    const label = element("label", {}, figure);
    element("span", { textContent: plane.name }, label);
    plane.output = element("output", {}, label);
    plane.slider = element("input", { type: "range", min: 0, max: content.shape[plane.axis] - 1, step: 1, value: state.at[plane.axis] }, label);
    plane.slider.setAttribute("aria-label", `${plane.name} slice`);
    plane.slider.addEventListener("input", () => move(plane.axis, Number(plane.slider.value)));
    stack.addEventListener("click", (event) => {
      const box = stack.getBoundingClientRect();
      const column = Math.floor(((event.clientX - box.left) / box.width) * plane.width);
      const row = Math.floor(((event.clientY - box.top) / box.height) * plane.height);
      move(plane.across, column);
      move(plane.down, plane.up ? plane.height - 1 - row : row);
    });
  }
  viewer.addEventListener("change", (event) => {
    const { name, value, checked } = event.target;
    if (name === "region") state.shown[checked ? "add" : "delete"](value);
    else if (name === "style") state.style = value;
    else if (name === "image") state.image = Number(value);
    else if (name === "probability") state.probability = value === "" ? null : Number(value);
    else if (name === "cross") state.cross = checked;
    redraw();
  });
  const greys = viewer.querySelectorAll(".window input");
  viewer.querySelector(".window").addEventListener("input", () => {
    for (const slider of greys) state[slider.name] = Number(slider.value);
    redraw();
  });
  document.getElementById("window-reset").addEventListener("click", () => {
    for (const slider of greys) state[slider.name] = Number((slider.value = slider.defaultValue));
    redraw();
  });
  viewer.hidden = false;
  PLANES.forEach(draw);
  viewer.dataset.ready = "yes";
})();
