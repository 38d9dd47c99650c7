/** Images and masks that the reader drops onto the page or opens; they are read in the browser and sent nowhere. */

import { make } from "./dom.js";
import { volumeOf } from "./stage.js";

const COLOURS = ["#56b4e9", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#999999"];
const MOST_LABELS = 12; // a file with more different values is an image
const READABLE_MS = 10_000; // for how long a message lies on the pictures
const ENDINGS = /\.(nii|nii\.gz|hdr|mgz|mgh|nrrd|mha|mhd)$/i;

/** Accept dropped files, and add a hidden control to choose some; returns a function that ends this. */
export function acceptFiles(element, viewer) {
  const input = make("input", { type: "file", multiple: true, hidden: true, "aria-label": "Add an image or a mask" });
  input.addEventListener("change", () => add(viewer, [...input.files]).then(() => (input.value = "")));
  element.append(input);
  const over = (event) => event.preventDefault();
  const drop = (event) => {
    event.preventDefault();
    add(viewer, [...event.dataTransfer.files]);
  };
  element.addEventListener("dragover", over);
  element.addEventListener("drop", drop);
  return () => {
    element.removeEventListener("dragover", over);
    element.removeEventListener("drop", drop);
  };
}

async function add(viewer, files) {
  for (const file of files) {
    try {
      if (!ENDINGS.test(file.name)) throw new Error("it is not a NIfTI file (.nii or .nii.gz)");
      await addVolume(viewer, file.name, await volumeOf(viewer.library, await file.arrayBuffer(), file.name));
    } catch (error) {
      viewer.complain(new Error(`${file.name}: cannot be shown: ${error.message}.`));
      const text = viewer.status.textContent;
      setTimeout(() => viewer.status.textContent === text && (viewer.status.textContent = ""), READABLE_MS);
    }
  }
}

async function addVolume(viewer, label, volume) {
  const { scene } = viewer;
  if (volume.hdr.dims[0] > 3 && volume.hdr.dims[4] > 1) throw new Error("it has more than three dimensions");
  const values = labelsOf(volume.img);
  const name = `file-${scene.images.length + scene.masks.length}`;
  viewer.volumes.set(name, Promise.resolve(volume));
  viewer.status.textContent = "";
  if (values) {
    const colours = values.map((value, place) => [value, COLOURS[place % COLOURS.length]]);
    const tissues = values.map((value) => ({ value, name: `${value}`, label: "" }));
    scene.masks.push({ name, role: "mask", label, tissues, regions: {}, volumes_ml: {}, colours });
  } else {
    const { robust_min: low, robust_max: high } = volume;
    scene.images.push({ name, label, window: [low, Math.max(high, low + 1e-3)] });
  }
  viewer.readout.put(values ? "mask" : "image", name, label, volume, values);
  viewer.windows.apply(name, volume);
  viewer.rebuild();
  await viewer.set(values ? { shown: name } : { image: name });
}

/** The values of a mask other than 0, or null if the file is an image. */
function labelsOf(voxels) {
  const found = new Set();
  for (const value of voxels) {
    if (found.has(value)) continue;
    if (!Number.isInteger(value) || value < 0 || value > 255 || found.size >= MOST_LABELS) return null;
    found.add(value);
  }
  return [...found].filter((value) => value).sort((one, other) => one - other);
}
