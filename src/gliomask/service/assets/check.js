/** The view before the start: which image is which sequence, and what the check says. */

import { announce, areYouSure, make, plural, showPage } from "./dom.js";
import { ask, nameOf, withNames } from "./server.js";

const TOLD = {
  name: "from its name",
  image: "guessed from the image: please check",
  you: "chosen by you",
};

export function showCheck(job, about, onStarted) {
  const answer = make("div", { id: "answer" });
  const start = make("button", { class: "main", id: "start" }, "Start");
  const title = make("input", {
    id: "title", value: job.title, maxlength: 60, pattern: "[A-Za-z0-9_.\\- ]{1,60}", autocomplete: "off", required: true,
    "aria-describedby": "title-hint",
  });
  const rows = job.images.map((image) => imageCard(job, image, about, (sequence) => change({ sequences: { [image.name]: sequence } })));
  let busy = 0;

  const render = () => {
    answer.replaceChildren(verdict(job));
    start.disabled = busy > 0 || job.state !== "checked";
    rows.forEach((row, number) => row.update(job.images[number]));
  };
  const change = async (changes) => {
    busy += 1;
    start.disabled = true;
    announce("Checking the images…");
    try {
      job = await ask(`/api/jobs/${job.id}`, { method: "PATCH", body: changes });
      announce(job.problems.length ? `It cannot be started yet: ${withNames(job, job.problems[0])}` : "Checked. It can be started.");
    } catch (error) {
      announce(error.message);
      answer.replaceChildren(make("p", { class: "problem", role: "alert" }, error.message));
    }
    busy -= 1;
    render();
  };
  start.addEventListener("click", async () => {
    if (!title.reportValidity()) return;
    start.disabled = true;
    try {
      if (title.value.trim() !== job.title) await ask(`/api/jobs/${job.id}`, { method: "PATCH", body: { title: title.value.trim() } });
      await ask(`/api/jobs/${job.id}/start`, { method: "POST" });
      onStarted();
    } catch (error) {
      answer.replaceChildren(make("p", { class: "problem", role: "alert" }, error.message));
      start.disabled = false;
    }
  });
  const discard = make("button", { class: "quiet", onclick: async () => {
    if (!(await areYouSure("Delete these images from the server?"))) return;
    await ask(`/api/jobs/${job.id}`, { method: "DELETE" });
    location.hash = "#/";
  } }, "Discard");

  showPage(
    "Check",
    make("h1", {}, "Which image is which?"),
    make("p", {}, missing(job, about)),
    make("section", { class: "card", "aria-label": "Images" }, make("div", { class: "images" }, rows.map((row) => row.element))),
    make("section", { class: "card", "aria-labelledby": "check-heading" }, make("h2", { id: "check-heading" }, "What the check says"), answer),
    make("section", { class: "card last" },
      make("label", { for: "title" }, "A name for this examination"), title,
      make("p", { class: "faint small", id: "title-hint" }, "It stands in the list, the report and the results. Letters, digits, spaces, _ . - and no patient's name, please."),
      make("div", { class: "buttons" }, start, discard)),
  );
  render();
  announce(job.problems.length ? "It cannot be started yet." : "The images are checked. It can be started.");
}

function missing(job, about) {
  const used = job.images.map((image) => image.sequence);
  const names = about.needs.filter((one) => !used.includes(one)).map((one) => about.sequences[one]);
  const first = `${plural(job.images.length, "image")}, told apart as well as it went. Correct what is wrong. `;
  if (!names.length) return first;
  return first + (about.may_lack ? `Without ${names.join(" and ")} it works too, only less well.` : `The model also needs ${names.join(" and ")}.`);
}

function imageCard(job, image, about, onChange) {
  const name = nameOf(job, image) ?? image.name.replace("-", " ");
  const select = make("select", { id: `sequence-${image.name}`, onchange: () => onChange(select.value || null) },
    Object.entries(about.sequences).map(([value, words]) => make("option", { value }, words)),
    make("option", { value: "" }, "Not used"));
  const told = make("span", { class: "faint small told" });
  const element = make("div", { class: "image" },
    make("img", { src: `/api/jobs/${job.id}/images/${image.name}/preview`, alt: `A slice of ${name}`, width: 160, height: 160 }),
    make("div", {},
      make("p", { class: "name" }, name),
      make("p", { class: "faint small" }, `${image.shape.join(" × ")} voxels of ${image.spacing_mm.map((mm) => +mm.toFixed(2)).join(" × ")} mm`),
      make("label", { for: select.id }, "Sequence"), select, told));
  return {
    element,
    update: (now) => {
      select.value = now.sequence ?? "";
      told.textContent = TOLD[now.told_by] ?? "not recognised: please choose";
      told.classList.toggle("alarm", now.told_by === "image" || now.told_by === null);
    },
  };
}

function verdict(job) {
  const list = (texts) => make("ul", {}, texts.map((text) => make("li", {}, withNames(job, text))));
  if (job.problems.length) return make("div", { class: "problem" }, make("p", {}, "It cannot be started like this:"), list(job.problems));
  if (job.notes.length) return make("div", { class: "warning" }, make("p", {}, "It can be started, but the result may be wrong:"), list(job.notes));
  return make("p", { class: "good" }, "Nothing odd: the images look as the model knows them.");
}
