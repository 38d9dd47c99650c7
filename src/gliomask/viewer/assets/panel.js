/** The controls beside the pictures: they show the viewer's state and change it through `viewer.set`. */

import { make, millilitres, radios, slider, swatch } from "./dom.js";
import { editPart } from "./editpanel.js";
import { TOOLS } from "./shortcuts.js";
import { PRESETS } from "./windows.js";

const percent = (value) => `${Math.round(100 * value)} %`;

/** Build the controls; `reflect` updates them after the state was changed elsewhere, for example by a key. */
export function buildPanel(viewer) {
  const parts = [...(viewer.editor ? [editPart(viewer)] : []), viewPart(viewer), toolPart(viewer), imagePart(viewer)];
  if (viewer.scene.masks.length) parts.push(maskPart(viewer));
  const element = make("aside", { class: "panel", "aria-label": "Controls" }, ...parts.map((part) => part.element));
  const reflect = (state) => parts.forEach((part) => part.reflect(state));
  reflect(viewer.state);
  return { element, reflect };
}

function viewPart(viewer) {
  const { state, scene } = viewer;
  const several = viewer.overlays().length > 1;
  const names = { pair: "Two examinations", planes: "Planes", one: "One plane", side: "Side by side", space: "3D" };
  const views = viewer.views.map((name) => [name, names[name]]);
  const view = radios("View", views, state.view, (next) => viewer.set({ view: next }));
  const planes = [["axial", "Axial"], ["coronal", "Coronal"], ["sagittal", "Sagittal"]];
  const plane = radios("Plane", planes, state.plane, (next) => viewer.set({ plane: next }));
  const sides = [["sequences", "Sequences"], ["masks", "Masks"]];
  const side = radios("Compare", sides, state.side, (next) => viewer.set({ side: next }));
  const cut = slider("Cut open", { min: 0, max: 1, step: 0.02, value: 0, show: percent, name: "cut" }, (depth) => viewer.cut(depth));
  const brain = slider("Brain", { min: 0.05, max: 1, step: 0.05, value: state.brain, show: percent, name: "brain" }, (next) => viewer.set({ brain: next }));
  const cross = make("input", { type: "checkbox", checked: state.crosshair, name: "crosshair", onchange: () => viewer.set({ crosshair: cross.checked }) });
  const line = make("label", { class: "line" }, cross, make("span", {}, "Crosshair"));
  const element = make("section", { "aria-label": "View" }, view.element, plane.element, side.element, brain.element, cut.element, line);
  return {
    element,
    reflect(now) {
      view.set(now.view);
      plane.set(now.plane);
      side.set(now.side);
      cross.checked = now.crosshair;
      plane.element.hidden = now.view === "space";
      side.element.hidden = now.view !== "side" || !several || scene.images.length < 1;
      cut.element.hidden = brain.element.hidden = now.view !== "space";
      line.hidden = now.view === "space";
    },
  };
}

function imagePart(viewer) {
  const { state, scene } = viewer;
  const names = scene.images.map(({ name, label }, place) => [name, label, `key ${place + 1}`]);
  const image = radios("Sequence", names, state.image, (next) => viewer.set({ image: next }));
  const others = make("select", { name: "blend", onchange: () => viewer.set({ blend: others.value }) });
  others.append(make("option", { value: "" }, "nothing"), ...names.map(([name, label]) => make("option", { value: name }, label)));
  const blend = make("label", { class: "select" }, make("span", {}, "Blend with"), others);
  const mix = slider("Share of the second image", { min: 0, max: 1, step: 0.05, value: state.mix, show: percent, name: "mix" }, (next) => viewer.set({ mix: next }));
  const presets = radios("Grey window", PRESETS, "auto", (next) => viewer.windows.choose(next));
  const share = (value) => {
    const [low, high] = viewer.imageOf(viewer.state.image).window;
    return (value - low) / (1.5 * (high - low));
  };
  const edge = (text, key) =>
    slider(text, { min: 0, max: 1, step: 0.01, value: 0, show: percent, name: text.toLowerCase() }, (place) => {
      const [low, high] = viewer.imageOf(viewer.state.image).window;
      const now = { ...viewer.windows.of(viewer.state.image), [key]: low + place * 1.5 * (high - low) };
      viewer.windows.change(now.low, now.high);
    });
  const black = edge("Black", "low");
  const white = edge("White", "high");
  const levels = make("details", {}, make("summary", {}, "Black and white"), black.element, white.element);
  const element = make("section", { "aria-label": "Images" }, image.element, presets.element, levels, blend, mix.element);
  const part = {
    element,
    reflect(now) {
      image.set(now.image);
      others.value = now.blend;
      for (const option of others.options) option.disabled = option.value === now.image;
      mix.set(now.mix);
      const blended = now.blend !== "" && now.blend !== now.image;
      mix.element.hidden = !blended || now.view === "side";
      blend.hidden = now.view === "side" || scene.images.length < 2;
      const { preset, low, high } = viewer.windows.of(now.image);
      for (const [key, input] of presets.inputs) {
        input.checked = key === preset;
        if (key === "tumour") input.parentElement.hidden = !scene.masks.length;
      }
      black.set(share(low));
      white.set(share(high));
    },
  };
  return part;
}

function toolPart(viewer) {
  const choices = TOOLS.map(([name, label, key]) => [name, label, `key ${key}`]);
  const tool = radios("Drag with the left button", choices, viewer.state.tool, (next) => viewer.set({ tool: next }));
  const list = make("ul", { class: "measures" });
  const clear = make("button", { type: "button", onclick: () => viewer.measures.slice().forEach((one) => viewer.actions.removeMeasure(one)) }, "Remove all");
  const element = make("section", { "aria-label": "Tools" }, tool.element, list, clear);
  const row = (record) => {
    const remove = make("button", { type: "button", "aria-label": `Remove ${record.text}`, onclick: () => viewer.actions.removeMeasure(record) }, "×");
    return make("li", {}, make("span", {}, `${record.plane} ${record.index + 1}: ${record.text}`), remove);
  };
  return {
    element,
    reflect(now) {
      for (const [key, input] of tool.inputs) input.checked = key === now.tool;
      list.replaceChildren(...viewer.measures.map(row));
      list.hidden = clear.hidden = !viewer.measures.length;
    },
  };
}

function maskPart(viewer) {
  const { state, scene } = viewer;
  const choices = [["none", "None"], ...scene.masks.map(({ name, label }) => [name, label])];
  if (scene.comparisons.length) choices.push(["compare", "Where they differ"]);
  const shown = radios("Mask", choices, state.shown, (next) => viewer.set({ shown: next }), { class: "choices words" });
  const styles = [["fill", "Filled"], ["outline", "Outline"]];
  const style = radios("Style", styles, state.outline ? "outline" : "fill", (next) => viewer.set({ outline: next === "outline" }));
  const opacity = slider("Opacity", { min: 0, max: 1, step: 0.05, value: state.opacity, show: percent, name: "opacity" }, (next) => viewer.set({ opacity: next }));
  const regions = regionTable(viewer);
  const comparison = comparisonTable(viewer);
  const note = make("p", { class: "note" }, "The mask was changed: load the page again to see where the saved one differs from others.");
  const element = make("section", { "aria-label": "Masks" }, shown.element, note, regions.element, comparison.element, style.element, opacity.element);
  return {
    element,
    reflect(now) {
      shown.set(now.shown);
      style.set(now.outline ? "outline" : "fill");
      opacity.set(now.opacity);
      style.element.hidden = now.view === "space";
      note.hidden = !viewer.outdated;
      if (shown.inputs.has("compare")) shown.inputs.get("compare").parentElement.hidden = !scene.comparisons.length;
      regions.element.hidden = now.shown === "compare";
      comparison.element.hidden = !scene.comparisons.length || (now.shown !== "compare" && !(now.view === "side" && now.side === "masks"));
      regions.reflect(now);
      comparison.reflect(now);
    },
  };
}

/** A switch for each region, and its volume in each mask. */
function regionTable(viewer) {
  const { scene } = viewer;
  const boxes = new Map();
  const cells = new Map();
  const rows = scene.regions.map(({ name, label, color }) => {
    const box = make("input", { type: "checkbox", name: "region", value: name, checked: viewer.state.regions.has(name), onchange: () => viewer.toggleRegion(name) });
    boxes.set(name, box);
    const volumes = scene.masks.map(() => make("td"));
    cells.set(name, volumes);
    const words = make("span", {}, make("b", {}, name), ` ${label}`);
    return make("tr", {}, make("th", { scope: "row" }, make("label", { class: "line" }, box, swatch(color), words)), ...volumes);
  });
  const heads = scene.masks.map(({ label }) => make("th", { scope: "col" }, label));
  const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Region"), ...heads));
  const element = make("table", { class: "regions" }, head, make("tbody", {}, ...rows));
  return {
    element,
    reflect(now) {
      boxes.forEach((box, name) => (box.checked = now.regions.has(name)));
      for (const [name, volumes] of cells) {
        volumes.forEach((cell, place) => {
          const { volumes_ml: found } = scene.masks[place];
          cell.textContent = name in found ? millilitres(found[name]) : "–";
        });
      }
    },
  };
}

/** The three colours of a comparison, for the selected mask and region. */
function comparisonTable(viewer) {
  const { scene } = viewer;
  const body = make("tbody");
  const dice = make("p", { class: "dice" });
  const masks = [...new Set(scene.comparisons.map(({ mask }) => mask))];
  const labels = Object.fromEntries(scene.masks.map(({ name, label }) => [name, label]));
  const choice = (text, name, change) => {
    const box = make("select", { name, onchange: () => change(box.value) });
    return { box, element: make("label", { class: "select" }, make("span", {}, text), box) };
  };
  const fits = (mask) => scene.comparisons.filter((one) => one.mask === mask);
  const mask = choice("Mask compared", "compared", (next) => {
    const region = fits(next).some((one) => one.region === viewer.state.region) ? viewer.state.region : fits(next)[0].region;
    viewer.set({ compared: next, region });
  });
  mask.box.append(...masks.map((name) => make("option", { value: name }, labels[name])));
  mask.element.hidden = masks.length < 2;
  const region = choice("Region compared", "compared-region", (next) => viewer.set({ region: next }));
  const element = make("div", {}, mask.element, region.element, make("table", { class: "regions" }, body), dice);
  return {
    element,
    reflect(now) {
      if (!scene.comparisons.length) return;
      for (const option of mask.box.options) option.hidden = option.disabled = !fits(option.value).length;
      mask.box.value = now.compared;
      const words = Object.fromEntries(scene.regions.map(({ name, label }) => [name, label]));
      region.box.replaceChildren(...fits(now.compared).map((one) => make("option", { value: one.region }, `${one.region} ${words[one.region]}`)));
      region.box.value = now.region;
      const found = fits(now.compared).find((one) => one.region === now.region);
      body.replaceChildren(
        ...scene.agreement.map(({ name, label, color }) =>
          make("tr", {}, make("th", { scope: "row" }, swatch(color), make("b", {}, name), ` ${label}`), make("td", {}, millilitres(found.volumes_ml[name]))),
        ),
      );
      dice.textContent = found.dice === null ? "The region is empty in both masks." : `Dice ${found.dice.toFixed(3)}`;
    },
  };
}
