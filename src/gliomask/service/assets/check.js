/** The view of a job before it is started: the sequence of each image, and the result of the check. */

import { announce, confirmDelete, make, plural, showPage } from "./dom.js";
import { ask, nameOf, unusedFiles, withNames } from "./server.js";

const SOURCES = {
  name: "recognised from the file name",
  image: "guessed from the image: please check",
  header: "recognised from the DICOM header",
  you: "chosen by you",
};

const MOST_UNUSED = 8;

export function showCheck(job, about, onStarted) {
  const answer = make("div", { id: "answer" });
  const start = make("button", { class: "main", id: "start" }, "Start");
  const title = make("input", {
    id: "title", value: job.title, maxlength: 60, pattern: "[A-Za-z0-9_.\\- ]{1,60}", autocomplete: "off", required: true,
    "aria-describedby": "title-hint",
  });
  const rows = job.images.map((image) => imageCard(job, image, about, (sequence) => change({ sequences: { [image.name]: sequence } })));
  const prepare = make("input", { type: "checkbox", id: "raw", checked: job.raw, onchange: () => change({ raw: prepare.checked }) });
  let busy = 0;

  const render = () => {
    answer.replaceChildren(verdict(job));
    start.disabled = busy > 0 || job.state !== "checked";
    prepare.checked = job.raw;
    rows.forEach((row, number) => row.update(job.images[number]));
  };
  const change = async (changes) => {
    busy += 1;
    start.disabled = true;
    announce("Checking the images…");
    try {
      job = await ask(`/api/jobs/${job.id}`, { method: "PATCH", body: changes });
      announce(job.problems.length ? `The examination cannot be started yet: ${withNames(job, job.problems[0])}` : "The images were checked. The examination can be started.");
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
    if (!(await confirmDelete("Delete these images from the server?"))) return;
    await ask(`/api/jobs/${job.id}`, { method: "DELETE" });
    location.hash = "#/";
  } }, "Discard");

  showPage(
    "Check",
    make("h1", {}, "Check the sequences"),
    make("p", {}, missing(job, about)),
    make("section", { class: "card", "aria-label": "Images" }, make("div", { class: "images" }, rows.map((row) => row.element)), unusedList(job)),
    about.can_prepare && make("section", { class: "card", "aria-labelledby": "raw-heading" },
      make("h2", { id: "raw-heading" }, "Preparation"),
      make("label", { class: "check" }, prepare, " Prepare the images first: register them to each other and remove the skull"),
      make("p", { class: "faint small" }, "Needed for images as the scanner made them; it takes a minute or more. The mask is returned on the grid of one of your images. Leave it out if the images share one grid and are skull-stripped.")),
    make("section", { class: "card", "aria-labelledby": "check-heading" }, make("h2", { id: "check-heading" }, "Result of the check"), answer),
    make("section", { class: "card last" },
      make("label", { for: "title" }, "Name of this examination"), title,
      make("p", { class: "faint small", id: "title-hint" }, "It is shown in the list, the report and the results. Use letters, digits, spaces and _ . - but no patient's name, please."),
      make("div", { class: "buttons" }, start, discard)),
  );
  render();
  announce(job.problems.length ? "The examination cannot be started yet." : "The images were checked. The examination can be started.");
}

/** The files that were chosen but are not used, such as a mask. */
function unusedList(job) {
  const files = unusedFiles(job);
  if (!files.length) return null;
  const shown = files.slice(0, MOST_UNUSED);
  if (files.length > shown.length) shown.push(`and ${files.length - shown.length} more`);
  return make("div", { id: "unused", class: "faint small" },
    make("p", {}, `Not used: ${plural(files.length, "file")}`), make("ul", {}, shown.map((one) => make("li", {}, one))));
}

function missing(job, about) {
  const used = job.images.map((image) => image.sequence);
  const names = about.needs.filter((one) => !used.includes(one)).map((one) => about.sequences[one]);
  const first = `${plural(job.images.length, "image")}. The sequence of each was recognised automatically; correct it where it is wrong. `;
  if (!names.length) return first;
  return first + (about.may_lack ? `The model also works without ${names.join(" and ")}, but less accurately.` : `The model also needs ${names.join(" and ")}.`);
}

function imageCard(job, image, about, onChange) {
  const name = nameOf(job, image) ?? image.name.replace("-", " ");
  const select = make("select", { id: `sequence-${image.name}`, onchange: () => onChange(select.value || null) },
    Object.entries(about.sequences).map(([value, words]) => make("option", { value }, words)),
    make("option", { value: "" }, "Not used"));
  const told = make("span", { class: "faint small told" });
  const element = make("div", { class: "image" },
    make("img", { src: `/api/jobs/${job.id}/images/${image.name}/preview`, alt: `One slice of ${name}`, width: 160, height: 160 }),
    make("div", {},
      make("p", { class: "name" }, name),
      make("p", { class: "faint small" }, `${image.shape.join(" × ")} voxels of ${image.spacing_mm.map((mm) => +mm.toFixed(2)).join(" × ")} mm`),
      make("label", { for: select.id }, "Sequence"), select, told));
  return {
    element,
    update: (now) => {
      select.value = now.sequence ?? "";
      told.textContent = SOURCES[now.told_by] ?? "not recognised: please choose";
      told.classList.toggle("alarm", now.told_by === "image" || now.told_by === null);
    },
  };
}

function verdict(job) {
  const list = (texts) => make("ul", {}, texts.map((text) => make("li", {}, withNames(job, text))));
  if (job.problems.length) return make("div", { class: "problem" }, make("p", {}, "The examination cannot be started, because:"), list(job.problems));
  if (job.notes.length) return make("div", { class: "warning" }, make("p", {}, "The examination can be started, but the result may be wrong:"), list(job.notes));
  if (job.raw) return make("p", { class: "good" }, "The examination can be started. The images are checked again after the preparation.");
  return make("p", { class: "good" }, "No problems were found: the images are like those the model was trained on.");
}
