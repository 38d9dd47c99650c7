/** Keyboard shortcuts, and the dialog that lists them. */

import { make } from "./dom.js";

/** Handle keys while the viewer is on the page; `shortcuts` are {keys: [...], says, does}. */
export function listen(element, shortcuts, enabled) {
  const actions = new Map(shortcuts.flatMap(({ keys, does }) => keys.map((key) => [key, does])));
  const onKey = (event) => {
    const { target } = event;
    const ours = element.contains(target) || target === document.body;
    if (!ours || event.ctrlKey || event.metaKey || event.altKey || target.closest?.("dialog[open]")) return;
    const onCanvas = target instanceof HTMLCanvasElement;
    if (onCanvas && event.key !== "Tab") event.stopPropagation(); // niivue has its own shortcuts
    const action = actions.get(event.key) ?? actions.get(event.key.toLowerCase());
    if (!action || !enabled() || (!onCanvas && needs(target, event.key))) return;
    event.preventDefault();
    action(event);
  };
  const quiet = (event) => event.target instanceof HTMLCanvasElement && element.contains(event.target) && event.stopPropagation();
  document.addEventListener("keydown", onKey, true);
  document.addEventListener("keyup", quiet, true);
  return () => {
    document.removeEventListener("keydown", onKey, true);
    document.removeEventListener("keyup", quiet, true);
  };
}

/** The list of shortcuts, with a switch for readers whose assistive software uses single letters. */
export function helpDialog(shortcuts, isOn, setOn) {
  const box = make("input", { type: "checkbox", checked: isOn(), onchange: () => setOn(box.checked) });
  const rows = shortcuts
    .filter(({ says }) => says)
    .map(({ keys, shown, says }) =>
      make("tr", {}, make("td", {}, ...(shown ?? keys).map((key) => make("kbd", {}, key))), make("td", {}, says)),
    );
  const close = make("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = make(
    "dialog",
    { "aria-labelledby": "gliomask-help" },
    make("h2", { id: "gliomask-help" }, "Keys, mouse and touch"),
    make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("tbody", {}, ...rows))),
    make(
      "p",
      {},
      "Mouse: click or drag to move the crosshair, use the wheel to change the slice, drag with the right button to pan. ",
      "In 3D, drag to rotate. Touch: one finger moves the crosshair, two fingers pan.",
    ),
    make("label", { class: "line" }, box, make("span", {}, "Single-letter shortcuts")),
    make("p", { class: "end" }, close),
  );
  return dialog;
}

/** Whether an element uses a key itself. */
function needs(target, key) {
  if (target.matches?.("input:not([type=checkbox]):not([type=radio]):not([type=range]), select, textarea")) return true;
  if (target.matches?.("input[type=range], input[type=radio]")) return /^(Arrow|Page|Home|End)|^[ +-]$/.test(key);
  return target.matches?.("button, summary, input, .scroll") ? /^(Arrow|Page)|^[ ]$|^Enter$/.test(key) : false;
}
