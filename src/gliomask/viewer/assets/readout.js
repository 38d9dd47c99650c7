/** The readout at the crosshair: its position, the value of each sequence, the tissue in each mask. */

import { make } from "./dom.js";
import { readVoxel } from "./stage.js";

// The axes of NIfTI. Their origin need not be the centre of the head, so they are not called left or right.
const AXES = ["x", "y", "z"];

/** Build the readout; values appear as volumes are loaded. */
export function buildReadout(scene) {
  const volumes = new Map();
  const cells = new Map();
  const cell = (name, label) => {
    const value = make("dd", { "data-name": name }, "…");
    cells.set(name, value);
    return make("div", {}, make("dt", {}, label), value);
  };
  const images = make("dl", {}, cell("place", "Position"), cell("voxel", "Voxel"), ...scene.images.map(({ name, label }) => cell(name, label)));
  const masks = make("dl", { class: "masks" }, ...scene.masks.map(({ name, label }) => cell(name, label)));
  const element = make("div", { class: "readout", role: "group", "aria-label": "At the crosshair" }, images, masks);
  const own = new Set([...scene.images, ...scene.masks].map(({ name }) => name));
  const says = new Map(scene.masks.map(({ name, tissues }) => [name, new Map(tissues.map((one) => [one.value, one]))]));
  const text = (name, found) => {
    if (!found) return "outside";
    if (!says.has(name)) return Number(found.value.toFixed(2)).toString();
    const tissue = says.get(name).get(found.value);
    return tissue ? `${tissue.name} ${tissue.label}` : "none";
  };
  const readout = {
    element,
    placeText: "",
    add: (name, volume) => volumes.set(name, volume),
    /** Add a file that the scene did not have at first. */
    put(kind, name, label, volume, values) {
      if (values) says.set(name, new Map(values.map((value) => [value, { name: `${value}`, label: "" }])));
      (kind === "mask" ? masks : images).append(cell(name, label));
      volumes.set(name, volume);
    },
    show(mm) {
      readout.placeText = `${mm.map((value, axis) => `${AXES[axis]} ${value.toFixed(1)}`).join("  ")} mm`;
      cells.get("place").textContent = readout.placeText;
      for (const [name, volume] of volumes) {
        const found = readVoxel(volume, mm);
        if (cells.has(name)) cells.get(name).textContent = text(name, found);
        if (found && own.has(name)) cells.get("voxel").textContent = found.index.map((value, axis) => value + scene.first_voxel[axis]).join(" ");
      }
    },
  };
  return readout;
}
