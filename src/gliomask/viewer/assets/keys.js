/** Keyboard shortcuts, and the dialog that lists them. */

import { make } from "./dom.js";

/** Handle keys while the viewer is on the page; `shortcuts` are {keys: [...], says, does}, and do nothing while it is `busy`. */
export function listen(element, shortcuts, enabled, busy) {
  const actions = new Map(shortcuts.flatMap(({ keys, does }) => keys.map((key) => [key, does])));
  const onKey = (event) => {
    const { target } = event;
    const ours = element.contains(target) || target === document.body;
    const command = (event.ctrlKey || event.metaKey) && { z: event.shiftKey ? "k" : "u", y: "k" }[event.key.toLowerCase()];
    if (ours && command && actions.has(command) && !needs(target, event.key)) {
      event.preventDefault();
      actions.get(command)(event);
      return;
    }
    if (!ours || event.ctrlKey || event.metaKey || event.altKey || target.closest?.("dialog[open]")) return;
    const onCanvas = target instanceof HTMLCanvasElement;
    const action = actions.get(event.key) ?? actions.get(event.key.toLowerCase());
    if (!action || !enabled() || (!onCanvas && needs(target, event.key))) return;
    event.preventDefault();
    if (!busy()) action(event);
  };
  document.addEventListener("keydown", onKey, true);
  return () => document.removeEventListener("keydown", onKey, true);
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
      "Mouse: the wheel changes the slice, and zooms with Ctrl. Click or drag to move the crosshair; drag with the right button ",
      "to set the grey window, with the middle button or Shift to move the image. Double click: one plane, or all. ",
      "In 3D, drag to rotate. Touch: one finger up or down changes the slice, a tap moves the crosshair, two fingers zoom and move.",
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
