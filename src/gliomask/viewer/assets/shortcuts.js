/** The keys and the buttons of the head, and what they do. */

import { make } from "./dom.js";
import { PLANES } from "./geometry.js";

const STEP = 0.1;
const REGION_KEYS = { WT: "a", TC: "t", ET: "e", RC: "r" };
export const TOOLS = [
  ["crosshair", "Crosshair", "c"],
  ["move", "Move", "g"],
  ["window", "Window", "w"],
  ["ruler", "Ruler", "l"],
  ["diameters", "Diameters", "d"],
  ["circle", "Mean", "i"],
];
const TOOL_WORDS = {
  crosshair: "drag moves the crosshair",
  move: "drag moves the image",
  window: "drag sets the grey window",
  ruler: "drag measures a length",
  diameters: "click on a region: its two diameters (RANO); drag draws them",
  circle: "drag a circle: the mean inside",
};

export function headButtons(viewer) {
  const button = (text, label, does, keys) =>
    make("button", { type: "button", "aria-label": label, title: label, "aria-keyshortcuts": keys, onclick: does }, text);
  return [
    button("−", "Zoom out", () => viewer.actions.zoom(1 / 1.25), "-"),
    button("+", "Zoom in", () => viewer.actions.zoom(1.25), "+"),
    button("Fit", "Show the whole image", () => viewer.actions.zoom(0), "0"),
    button("To tumour", "Go to the tumour", () => viewer.goTo(viewer.scene.start_mm), "h"),
    button("Open file", "Add an image or a mask of your own; files can also be dropped", () => viewer.element.querySelector("input[type=file]").click(), "f"),
    button("Save picture", "Save a picture (PNG)", () => viewer.save(), "s"),
    button("?", "Keys, mouse and touch", () => viewer.help.showModal(), "?"),
  ];
}

/** The shortcuts, in the order of the list. */
export function shortcutsOf(viewer) {
  return [...showing(viewer), ...moving(viewer), ...tools(viewer), ...editing(viewer), { keys: ["?"], says: "show this list", does: () => viewer.help.showModal() }];
}

function showing(viewer) {
  const { scene, state } = viewer;
  const dim = (sign) => () => viewer.set({ opacity: Math.min(1, Math.max(0, state.opacity + sign * STEP)) });
  return [
    ...scene.images.map(({ name, label }, number) => ({ keys: [`${number + 1}`], says: label, does: () => viewer.set({ image: name }) })),
    ...scene.regions.map(({ name, label }) => ({
      keys: [REGION_KEYS[name] ?? name[0].toLowerCase()], says: `${label} on or off`, does: () => viewer.toggleRegion(name),
    })),
    { keys: ["m"], says: "mask on or off", does: () => viewer.toggleMask() },
    { keys: ["n"], says: "next mask, then where they differ", does: () => viewer.next(["none", ...viewer.overlays()], "shown") },
    { keys: ["o"], says: "outlines or filled", does: () => viewer.set({ outline: !state.outline }) },
    { keys: ["["], says: "decrease the opacity of the mask", does: dim(-1) },
    { keys: ["]"], says: "increase the opacity of the mask", does: dim(1) },
    { keys: ["v"], says: "next view: planes, one plane, side by side, 3D", does: () => viewer.next(viewer.views, "view") },
    { keys: ["p"], says: "next plane: axial, coronal, sagittal", does: () => viewer.next(PLANES, "plane") },
    { keys: ["Enter"], says: "one plane, or all", does: () => viewer.actions.maximize(state.active) },
    { keys: ["b"], says: "blend in the next sequence", does: () => viewer.next(["", ...scene.images.map(({ name }) => name).filter((name) => name !== state.image)], "blend") },
    { keys: ["x"], says: "crosshair on or off", does: () => viewer.set({ crosshair: !state.crosshair }) },
    { keys: ["5"], says: "grey window: automatic", does: () => viewer.windows.choose("auto") },
    { keys: ["6"], says: "grey window: tumour", does: () => viewer.windows.choose("tumour") },
    { keys: ["7"], says: "grey window: full range", does: () => viewer.windows.choose("full") },
  ];
}

function moving(viewer) {
  const { actions } = viewer;
  const move = (...steps) => (event) => actions.step(...steps.map((step) => step * (event.shiftKey ? 10 : 1)));
  return [
    { keys: ["ArrowLeft"], shown: ["←", "→", "↑", "↓"], says: "move the crosshair; with Shift by ten", does: move(-1, 0, 0) },
    { keys: ["ArrowRight"], does: move(1, 0, 0) },
    { keys: ["ArrowUp"], does: move(0, 1, 0) },
    { keys: ["ArrowDown"], does: move(0, -1, 0) },
    { keys: ["PageUp"], shown: ["Page up", "Page down"], says: "next or previous slice; with Shift by ten", does: move(0, 0, 1) },
    { keys: ["PageDown"], does: move(0, 0, -1) },
    { keys: ["+", "="], shown: ["+", "-", "0"], says: "zoom in, zoom out, whole image", does: () => actions.zoom(1.25) },
    { keys: ["-"], does: () => actions.zoom(1 / 1.25) },
    { keys: ["0"], does: () => actions.zoom(0) },
    { keys: ["h"], says: "go to the tumour", does: () => viewer.goTo(viewer.scene.start_mm) },
  ];
}

function tools(viewer) {
  return [
    ...TOOLS.map(([tool, , key]) => ({ keys: [key], says: TOOL_WORDS[tool], does: () => viewer.set({ tool }) })),
    { keys: ["Delete", "Backspace"], says: "remove the last measurement", does: () => viewer.actions.removeMeasure() },
    { keys: ["f"], says: "add a file", does: () => viewer.element.querySelector("input[type=file]").click() },
    { keys: ["s"], says: "save a picture", does: () => viewer.save() },
  ];
}

function editing(viewer) {
  const { editor } = viewer;
  if (!editor) return [];
  const size = (change) => () => {
    editor.options.mm = Math.min(40, Math.max(1, editor.options.mm + change));
    viewer.panel.reflect(viewer.state);
  };
  return [
    { keys: ["q"], says: "brush", does: () => viewer.set({ tool: "brush" }) },
    { keys: ["y"], says: "eraser", does: () => viewer.set({ tool: "eraser" }) },
    { keys: [","], shown: [",", "."], says: "smaller or larger brush", does: size(-1) },
    { keys: ["."], does: size(1) },
    { keys: ["u"], shown: ["u", "Ctrl+Z"], says: "undo", does: () => editor.undo() },
    { keys: ["k"], shown: ["k", "Ctrl+Y"], says: "redo", does: () => editor.redo() },
  ];
}
