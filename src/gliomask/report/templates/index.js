"use strict";
(() => {
  const data = JSON.parse(document.getElementById("cases-data").textContent);
  const PAGE = 50;
  const root = document.getElementById("list");

  function make(tag, attributes = {}, ...content) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== null) element.setAttribute(name, value);
    }
    element.append(...content);
    return element;
  }

  const text = (value, digits) => (value === undefined || value === null ? "" : value.toFixed(digits));
  const some = (key) => data.cases.some((one) => one[key] !== undefined && one[key] !== null);
  const columns = [{ name: "case", value: (one) => one.case }];
  for (const region of data.regions) {
    columns.push({ name: `${region} mL`, value: (one) => one.ml[region], show: (one) => text(one.ml[region], 1) });
  }
  if (some("lesions")) columns.push({ name: "lesions", value: (one) => one.lesions, show: (one) => text(one.lesions, 0) });
  if (some("dice")) columns.push({ name: "estimated Dice", value: (one) => one.dice, show: (one) => text(one.dice, 2) });
  columns.push({ name: "warnings", value: (one) => one.texts.length });

  const state = { column: 0, down: false, page: 0, words: "", kind: "all" };
  const order = new Intl.Collator(undefined, { numeric: true });

  function chosen() {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const found = data.cases.filter((one) => {
      if (state.kind === "any" && !one.texts.length) return false;
      if (state.kind === "none" && one.texts.length) return false;
      if (/^\d+$/.test(state.kind) && !one.kinds.includes(Number(state.kind))) return false;
      const all = `${one.case} ${one.patient} ${one.timepoint}`.toLowerCase();
      return words.every((word) => all.includes(word));
    });
    const { value } = columns[state.column];
    const sign = state.down ? -1 : 1;
    return found.sort((a, b) => {
      const [first, second] = [value(a), value(b)];
      // Cases without a value come last in either direction.
      if (first === undefined || first === null) return second === undefined || second === null ? 0 : 1;
      if (second === undefined || second === null) return -1;
      return sign * (typeof first === "number" ? first - second : order.compare(first, second));
    });
  }

  const search = make("input", { type: "search", placeholder: "case or patient" });
  const kinds = make("select", {}, make("option", { value: "all" }, "all cases"),
    make("option", { value: "any" }, "with a warning"), make("option", { value: "none" }, "without warnings"));
  data.kinds.forEach(([kind, count], number) => kinds.append(make("option", { value: number }, `${kind} (${count})`)));
  const sorting = make("select");
  columns.forEach((column, number) => sorting.append(make("option", { value: number }, column.name)));
  const direction = make("button", { type: "button" });
  const controls = make("div", { class: "controls of-list" }, make("label", {}, "Find", search),
    make("label", {}, "Show", kinds), make("label", {}, "Sort by", sorting), direction);
  const headings = make("tr", {}, make("th"));
  columns.forEach((column, number) => {
    const button = make("button", { type: "button" }, column.name);
    button.addEventListener("click", () => sortBy(number, state.column === number ? !state.down : number > 0));
    headings.append(make("th", { class: number && number < columns.length - 1 ? null : "what", scope: "col" }, button));
  });
  headings.append(make("th"));
  const body = make("tbody");
  const back = make("button", { type: "button" }, "Back");
  const next = make("button", { type: "button" }, "Next");
  const where = make("span", { role: "status" });
  root.append(controls, make("table", { class: "list" }, make("thead", {}, headings), body),
    make("div", { class: "pages" }, back, next, where));

  function row(one) {
    const picture = make("td", { class: "pic" });
    if (one.picture) picture.append(make("img", { src: one.picture, alt: "axial slice with the regions", loading: "lazy" }));
    const name = make("strong");
    const report = one.links.find(([what]) => what === "report");
    name.append(report ? make("a", { href: report[1] }, one.case) : one.case);
    const who = [one.patient !== one.case ? one.patient : "", one.timepoint].filter(Boolean).join(" · ");
    const cells = [picture, make("td", { class: "what" }, name, make("span", { class: "note" }, who))];
    columns.slice(1, -1).forEach((column) => cells.push(make("td", { "data-name": column.name }, column.show(one))));
    const why = make("td", { class: "why" });
    if (one.texts.length) why.append(make("ul", {}, ...one.texts.map((each) => make("li", {}, each))));
    const links = make("td", { class: "links" }, ...one.links.map(([what, link]) => make("a", { href: link }, what)));
    return make("tr", {}, ...cells, why, links);
  }

  function draw() {
    const found = chosen();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const first = state.page * PAGE;
    const shown = found.slice(first, first + PAGE);
    body.replaceChildren(...shown.map(row));
    where.textContent = found.length ? `${first + 1} to ${first + shown.length} of ${found.length}` : "no case fits";
    back.disabled = state.page === 0;
    next.disabled = state.page === pages - 1;
    sorting.value = String(state.column);
    direction.textContent = state.down ? "▼ descending" : "▲ ascending";
    [...headings.children].slice(1, -1).forEach((heading, number) => {
      if (number === state.column) heading.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    });
  }

  function change(values) {
    Object.assign(state, { page: 0 }, values);
    draw();
  }

  function sortBy(column, down) {
    change({ column, down });
  }

  search.addEventListener("input", () => change({ words: search.value }));
  kinds.addEventListener("change", () => change({ kind: kinds.value }));
  sorting.addEventListener("change", () => sortBy(Number(sorting.value), Number(sorting.value) > 0));
  direction.addEventListener("click", () => sortBy(state.column, !state.down));
  back.addEventListener("click", () => { change({ page: state.page - 1 }); root.scrollIntoView(); });
  next.addEventListener("click", () => { change({ page: state.page + 1 }); root.scrollIntoView(); });
  draw();
})();
