/** Functions that build the elements of the page. */

/** Make an element with attributes and children; text is never parsed as HTML. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

let count = 0;

/** An id that is unique in the page. */
export function freshId() {
  count += 1;
  return `gliomask-${count}`;
}

/** A group of radio buttons; `choices` are [value, label, hint]. */
export function radios(legend, choices, value, onChange, attributes = {}) {
  const name = freshId();
  const inputs = new Map();
  const labels = choices.map(([key, text, hint]) => {
    const input = make("input", { type: "radio", name, value: key, checked: key === value, onchange: () => onChange(key) });
    inputs.set(key, input);
    return make("label", hint ? { title: hint } : {}, input, make("span", {}, text));
  });
  const element = make("fieldset", { class: "choices", ...attributes }, make("legend", {}, legend), ...labels);
  return { element, set: (key) => inputs.get(key) && (inputs.get(key).checked = true), inputs };
}

/** A slider with its value beside it. */
export function slider(text, { min, max, step, value, show, name }, onInput) {
  const id = freshId();
  const output = make("output", { for: id }, show(value));
  const input = make("input", { type: "range", id, min: `${min}`, max: `${max}`, step: `${step}`, name: name ?? "" });
  input.value = value;
  input.addEventListener("input", () => {
    output.textContent = show(Number(input.value));
    onInput(Number(input.value));
  });
  const element = make("div", { class: "slider" }, make("label", { for: id }, text), output, input);
  const set = (next) => {
    input.value = next;
    output.textContent = show(Number(input.value));
  };
  return { element, input, set };
}

/** A coloured square, hidden from screen readers because text beside it has the same meaning. */
export function swatch(colour) {
  const element = make("span", { class: "swatch", "aria-hidden": "true" });
  element.style.background = colour;
  return element;
}

/** Format a volume in mL. */
export function millilitres(value) {
  return `${value.toFixed(value < 10 ? 2 : 1)} mL`;
}
