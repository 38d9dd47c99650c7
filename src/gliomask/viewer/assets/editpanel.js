/** The controls of an editor. */

import { make, radios, slider } from "./dom.js";

const CHAIN = ["WT", "TC", "ET"];
const OPERATIONS = [
  ["fill", "Fill holes", "Fill what the region encloses in this slice"],
  ["smooth", "Smooth", "Smooth the surface of the region"],
  ["remove", "Remove piece", "Remove the piece of the region at the crosshair"],
  ["grow", "Grow", "Grow into voxels between the thresholds, at most the reach away"],
  ["shrink", "Shrink", "Remove the voxels that are not between the thresholds"],
  ["interpolate", "Interpolate", "Fill the empty slices between painted ones of this plane"],
  ["copy", "Copy slice above", "Make the region in this slice that of the slice above"],
];

export function editPart(viewer) {
  const { editor } = viewer;
  const { options } = editor;
  const change = (changes) => {
    Object.assign(options, changes);
    viewer.panel.reflect(viewer.state);
  };
  const region = radios("Region", Object.keys(editor.tables).map((name) => [name, name]), options.region, (next) => change({ region: next }));
  const tool = radios("Tool", [["brush", "Brush", "key q"], ["eraser", "Eraser", "key y"]], "", (next) => viewer.set({ tool: next }));
  const shape = radios("Shape", [["disc", "Disc in the slice"], ["ball", "Ball"]], "disc", (next) => change({ ball: next === "ball" }));
  const mm = slider("Size", { min: 1, max: 40, step: 1, value: options.mm, show: (value) => `${value} mm`, name: "brush-mm" }, (next) => change({ mm: next }));
  const effect = make("table", { class: "effect" });
  const number = (text, name, value, set) => {
    const input = make("input", { type: "number", name, value: `${value}`, step: "any", onchange: () => set(Number(input.value)) });
    return { input, element: make("label", { class: "select" }, make("span", {}, text), input) };
  };
  const low = number("From", "low", "", (value) => editor.bound({ low: value }));
  const high = number("To", "high", "", (value) => editor.bound({ high: value }));
  const reach = number("Reach, mm", "reach", options.reach, (value) => change({ reach: value }));
  const bounds = make("div", { class: "bounds" }, low.element, high.element, reach.element);
  let filled = "";
  const fill = () => {
    const key = `${viewer.state.image} ${options.region}`;
    if (!thresholds.open || filled === key || !editor.volume) return;
    filled = key;
    const found = editor.bounds;
    low.input.value = found.low;
    high.input.value = found.high;
  };
  const button = (name, text, hint, does) => make("button", { type: "button", name, title: hint, onclick: does }, text);
  const operations = make("div", { class: "row" }, ...OPERATIONS.map(([name, text, hint]) => button(name, text, hint, () => editor.apply(name))));
  const undo = button("undo", "Undo", "Ctrl+Z", () => editor.undo());
  const redo = button("redo", "Redo", "Ctrl+Y", () => editor.redo());
  const take = button("take", "Edit here instead", "The other window then saves nothing more", () => editor.takeOver());
  const steps = make("div", { class: "row" }, undo, redo, button("save", "Save now", "It is also saved by itself", () => editor.save()),
    button("finish", "Finish", "Save, and check the mask", () => editor.save(true)), take);
  const said = make("p", { class: "said", role: "status" });
  const findings = make("ul", { class: "findings" });
  const thresholds = make("details", { ontoggle: () => fill() }, make("summary", {}, "Thresholds on the shown sequence"), bounds);
  const element = make("section", { "aria-label": "Edit" }, region.element, tool.element, shape.element, mm.element, effect, operations, thresholds, steps, said, findings);
  return {
    element,
    reflect(now) {
      for (const [key, input] of tool.inputs) input.checked = now.tool === key;
      mm.set(options.mm);
      fill();
      effect.replaceChildren(...effectRows(editor, now.tool));
      undo.disabled = editor.busy || !editor.done.length;
      redo.disabled = editor.busy || !editor.undone.length;
      for (const one of operations.children) one.disabled = editor.busy;
      take.hidden = editor.problem?.status !== 409;
      said.textContent = editor.said;
      said.classList.toggle("problem", editor.problem !== null);
      findings.replaceChildren(...editor.findings.map((text) => make("li", {}, text)));
    },
  };
}

/** What the brush does to each region: + adds to it, − removes from it. */
function effectRows(editor, tool) {
  const chosen = CHAIN.indexOf(editor.options.region);
  const erasing = tool === "eraser";
  return CHAIN.filter((name) => name in editor.tables).map((name) => {
    const place = CHAIN.indexOf(name);
    const touched = chosen < 0 ? false : erasing ? place >= chosen : place <= chosen;
    const words = touched ? (erasing ? "− removed" : "+ added") : "unchanged";
    return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, words));
  });
}
