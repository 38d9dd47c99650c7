// Draws the surfaces of the brain and its regions pixel by pixel. Each part has its own depth buffer, and inner parts are
// drawn first. Points are RAS+; yaw 0 is the view from the front, with the patient's right on the left.
(() => {
  "use strict";
  const content = JSON.parse(document.getElementById("surface-content").textContent);
  const canvas = document.getElementById("surface");
  const button = document.getElementById("turn");
  if (!content.parts.length) { document.getElementById("space-section").hidden = true; return; }
  const SIZE = canvas.width;
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(SIZE, SIZE);
  const depth = new Float32Array(SIZE * SIZE);
  const light = new Uint8Array(SIZE * SIZE);
  const facing = new Uint8Array(SIZE * SIZE);
  const OPACITY = { ET: 1, TC: 0.55, WT: 0.4, RC: 0.6 };
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

  const parts = content.parts.map((part) => {
    const points = new Int16Array(bytes(part.points));
    const triangles = new Uint16Array(bytes(part.triangles));
    const normals = new Float32Array(points.length);
    for (let t = 0; t < triangles.length; t += 3) {
      const [a, b, c] = [3 * triangles[t], 3 * triangles[t + 1], 3 * triangles[t + 2]];
      const u = [0, 1, 2].map((k) => points[b + k] - points[a + k]);
      const v = [0, 1, 2].map((k) => points[c + k] - points[a + k]);
      const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normals[corner + k] += n[k];
    }
    for (let p = 0; p < normals.length; p += 3) {
      const length = Math.hypot(normals[p], normals[p + 1], normals[p + 2]) || 1;
      for (let k = 0; k < 3; k++) normals[p + k] /= length;
    }
    const colour = [1, 3, 5].map((at) => parseInt(part.colour.slice(at, at + 2), 16));
    return { name: part.name, points, triangles, normals, colour, seen: new Float32Array((points.length / 3) * 5) };
  });
  const shown = new Set(parts.map((part) => part.name));
  const view = { yaw: 0.6, pitch: 0.25 };

  const axes = () => {
    const [cy, sy, cp, sp] = [Math.cos(view.yaw), Math.sin(view.yaw), Math.cos(view.pitch), Math.sin(view.pitch)];
    return { right: [-cy, -sy, 0], up: [sy * sp, -cy * sp, cp], near: [-sy * cp, cy * cp, sp] };
  };
  const dot = (v, x, y, z) => v[0] * x + v[1] * y + v[2] * z;
  const scale = (0.46 * SIZE) / content.radius;

  const place = (part, { right, up, near }) => {
    const { points, normals, seen } = part;
    for (let p = 0, s = 0; p < points.length; p += 3, s += 5) {
      const [x, y, z, i, j, k] = [points[p], points[p + 1], points[p + 2], normals[p], normals[p + 1], normals[p + 2]];
      seen[s] = SIZE / 2 + scale * dot(right, x, y, z);
      seen[s + 1] = SIZE / 2 - scale * dot(up, x, y, z);
      seen[s + 2] = dot(near, x, y, z);
      const towards = dot(near, i, j, k);
      seen[s + 3] = 255 * Math.min(1, 0.3 + 0.75 * Math.max(0, 0.35 * dot(up, i, j, k) - 0.3 * dot(right, i, j, k) + 0.85 * towards));
      seen[s + 4] = 255 * Math.min(1, Math.max(0, towards));
    }
  };
  const fill = ({ triangles, seen }) => {
    depth.fill(-1e9);
    for (let t = 0; t < triangles.length; t += 3) {
      const [a, b, c] = [5 * triangles[t], 5 * triangles[t + 1], 5 * triangles[t + 2]];
      const [ax, ay, bx, by, cx, cy] = [seen[a], seen[a + 1], seen[b], seen[b + 1], seen[c], seen[c + 1]];
      const area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
      if (area >= 0) continue; // back face; picture rows increase downwards
      const x0 = Math.max(0, Math.ceil(Math.min(ax, bx, cx))), x1 = Math.min(SIZE - 1, Math.floor(Math.max(ax, bx, cx)));
      const y0 = Math.max(0, Math.ceil(Math.min(ay, by, cy))), y1 = Math.min(SIZE - 1, Math.floor(Math.max(ay, by, cy)));
      for (let y = y0; y <= y1; y++)
        for (let x = x0; x <= x1; x++) {
          const u = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area;
          const v = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area;
          const w = 1 - u - v;
          if (u < -1e-4 || v < -1e-4 || w < -1e-4) continue;
          const z = u * seen[a + 2] + v * seen[b + 2] + w * seen[c + 2];
          const pixel = y * SIZE + x;
          if (z <= depth[pixel]) continue;
          depth[pixel] = z;
          light[pixel] = u * seen[a + 3] + v * seen[b + 3] + w * seen[c + 3];
          facing[pixel] = u * seen[a + 4] + v * seen[b + 4] + w * seen[c + 4];
        }
    }
  };
  const blend = ({ name, colour }) => {
    const data = picture.data;
    for (let pixel = 0, at = 0; pixel < depth.length; pixel++, at += 4) {
      if (depth[pixel] < -1e8) continue;
      const grazing = 1 - facing[pixel] / 255;
      const alpha = name === "brain" ? 0.16 + 0.6 * grazing * grazing : Math.min(1, OPACITY[name] + 0.35 * grazing * grazing);
      const bright = light[pixel] / 255;
      for (let k = 0; k < 3; k++) data[at + k] = data[at + k] * (1 - alpha) + colour[k] * bright * alpha;
    }
  };
  const letters = ({ right, up, near }) => {
    pen.font = "bold 18px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const reach = content.radius * 1.0;
    for (const [letter, x, y, z] of [["R", 1, 0, 0], ["L", -1, 0, 0], ["A", 0, 1, 0], ["P", 0, -1, 0], ["S", 0, 0, 1], ["I", 0, 0, -1]]) {
      const towards = dot(near, x, y, z);
      pen.fillStyle = `rgb(235 235 235 / ${towards < -0.3 ? 0.25 : 0.9})`;
      pen.fillText(letter, SIZE / 2 + scale * reach * dot(right, x, y, z), SIZE / 2 - scale * reach * dot(up, x, y, z));
    }
  };
  const draw = () => {
    const looking = axes();
    for (let at = 0; at < picture.data.length; at += 4) { picture.data[at] = picture.data[at + 1] = picture.data[at + 2] = 0; picture.data[at + 3] = 255; }
    for (const part of [...parts].reverse()) if (shown.has(part.name)) { place(part, looking); fill(part); blend(part); }
    pen.putImageData(picture, 0, 0);
    letters(looking);
  };

  let turning = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  let visible = true;
  let last = 0;
  const say = () => {
    button.textContent = turning ? "stop rotation" : "rotate";
    button.setAttribute("aria-pressed", String(turning));
  };
  const tick = (now) => {
    if (turning && visible && now - last > 40) {
      view.yaw += Math.min(0.05, 0.0006 * (now - last));
      last = now;
      draw();
    }
    if (turning) requestAnimationFrame(tick);
  };
  const setTurning = (value) => {
    if (value === turning) return;
    turning = value;
    last = performance.now();
    say();
    if (turning) requestAnimationFrame(tick);
  };
  const turn = (yaw, pitch) => {
    setTurning(false);
    view.yaw += yaw;
    view.pitch = Math.max(-1.5, Math.min(1.5, view.pitch + pitch));
    draw();
  };
  button.addEventListener("click", () => setTurning(!turning));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (!step) return;
    event.preventDefault();
    turn(...step);
  });
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) turn(0.01 * event.movementX, 0.01 * event.movementY);
  });
  document.querySelectorAll("input[name=part]").forEach((box) =>
    box.addEventListener("change", () => { shown[box.checked ? "add" : "delete"](box.value); draw(); }));
  new IntersectionObserver((entries) => { visible = entries[entries.length - 1].isIntersecting; }).observe(canvas);
  say();
  draw();
  if (turning) requestAnimationFrame(tick);
  canvas.dataset.ready = "yes";
})();
