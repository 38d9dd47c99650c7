/** The view of one job. It changes with the state: check, wait, result or end. */

import { showCheck } from "./check.js";
import { announce, confirmDelete, day, duration, make, showPage } from "./dom.js";
import { ask, withNames } from "./server.js";

const STAGES = { start: "Starting", prepare: "Preparing the images: registration and brain extraction", predict: "Segmenting the tumour", write: "Writing the mask", report: "Making the report" };
const WHILE_EDITING = "Changes are saved by themselves, beside the mask of the model, which stays as it is.";
const NOT_SAVED = "The last changes could not be saved, so they stay on this page. To leave without them, reload or close it.";

/** Show the view; returns how to save its changes, which resolves to whether all are saved, and how to end it. */
export async function showJob(id, about) {
  let over = false;
  let timer = null;
  let shown = null;
  let view = null;
  const step = async () => {
    let job;
    try {
      job = await ask(`/api/jobs/${id}`);
    } catch (error) {
      if (error.status !== 0) throw error;
      if (!over) timer = setTimeout(step, 2000);
      return;
    }
    if (over) return;
    const phase = phaseOf(job);
    if (phase !== shown) {
      view?.end?.();
      shown = phase;
      view = { check: () => showCheck(job, about, again), wait: () => showProgress(job, again), result: () => showResult(job, about, again), ended: () => showEnd(job, again) }[phase]();
    }
    view?.update?.(job);
    if (["queued", "running"].includes(job.state)) timer = setTimeout(() => step().catch(() => {}), 700);
  };
  const again = () => {
    clearTimeout(timer);
    step();
  };
  await step();
  const end = () => {
    over = true;
    clearTimeout(timer);
    view?.end?.();
  };
  return { save: () => view?.save?.(), end };
}

function phaseOf(job) {
  if (["uploaded", "checked"].includes(job.state)) return "check";
  if (job.volumes_ml) return "result";
  return ["queued", "running"].includes(job.state) ? "wait" : "ended";
}

function showProgress(job, again) {
  const bar = make("progress", { max: 1, value: 0, "aria-labelledby": "what" });
  const what = make("p", { class: "big", id: "what" });
  const left = make("p", { class: "faint", id: "left" });
  const names = Object.keys(STAGES).filter((name) => job.raw || name !== "prepare");
  const stages = make("ol", { class: "stages" }, names.map((name) => [name, STAGES[name]]).map(([name, words]) => make("li", { "data-stage": name }, words)));
  const cancel = make("button", { id: "cancel", onclick: async () => {
    cancel.disabled = true;
    await ask(`/api/jobs/${job.id}/cancel`, { method: "POST" }).catch(() => {});
    announce("Cancelled.");
    again();
  } }, "Cancel");
  showPage(job.title, make("h1", {}, job.title), make("section", { class: "card progress" }, what, bar, left, stages, make("div", { class: "buttons" }, cancel)),
    make("p", { class: "faint" }, "You may close this page: the computation continues, and the list of examinations links to this page."));
  return {
    update: (now) => {
      const place = names.indexOf(now.stage);
      if (now.state === "queued") {
        what.textContent = now.position === 1 ? "Next in the queue" : `Number ${now.position} in the queue`;
        bar.removeAttribute("value");
      } else {
        what.textContent = `${STAGES[now.stage] ?? "Starting"}…`;
        bar.value = now.progress ?? 0;
      }
      left.textContent = now.seconds_left === null ? "" : `${duration(now.seconds_left)} left`;
      [...stages.children].forEach((item, number) => {
        item.classList.toggle("done", number < place);
        if (number === place) item.setAttribute("aria-current", "step");
        else item.removeAttribute("aria-current");
      });
      announce(what.textContent);
    },
  };
}

function showResult(job, about, again) {
  const report = make("div", { class: "report" });
  const corrected = make("ul", { class: "downloads", id: "corrected" });
  const address = `/api/jobs/${job.id}`;
  const swatches = {};
  const pictures = picturesPart(address, swatches, again);
  const volumes = make("section", { class: "card", "aria-labelledby": "volumes-heading" },
    make("h2", { id: "volumes-heading" }, "Volumes"), volumeTable(job, about, swatches));
  showPage(
    job.title,
    make("h1", {}, job.title),
    job.warnings.length > 0 && make("div", { class: "warning" }, make("p", {}, "The images are unlike the training data; the result may be wrong:"),
      make("ul", {}, job.warnings.map((text) => make("li", {}, withNames(job, text))))),
    make("section", { class: "card wide", "aria-label": "Images and mask" }, pictures.element),
    make("div", { class: "side" }, volumes,
      make("section", { class: "card", "aria-labelledby": "files-heading" }, make("h2", { id: "files-heading" }, "Results"),
        report,
        make("ul", { class: "downloads" },
          download(`${address}/mask`, "Mask", job.raw ? "NIfTI, on the grid of the T1 with contrast, or of the next sequence that there is" : "NIfTI, on the grid of your images"),
          download(`${address}/facts`, "Facts", "JSON: volumes, model, versions"),
          download(`${address}/probabilities`, "Probabilities", "NIfTI, one channel per region")), corrected),
      make("section", { class: "card", "aria-labelledby": "about-heading" }, make("h2", { id: "about-heading" }, "This examination"),
        make("p", { id: "kept", class: "faint small" }),
        make("button", { class: "quiet", onclick: async () => {
          if (!(await confirmDelete(`Delete “${job.title}” with its images, results and corrections? This cannot be undone.`))) return;
          await ask(address, { method: "DELETE" }).then(pictures.end).catch(() => {}); // without saving changes
          location.hash = "#/";
        } }, "Delete"))),
  );
  announce(`Done: whole tumour ${job.volumes_ml.WT ?? "?"} millilitres.`);
  pictures.show(false);
  return {
    update: (now) => {
      corrected.replaceChildren(...(now.edited ? [download(`${address}/edited`, "Corrected mask", "NIfTI, as it was saved last"), download(`${address}/edited/facts`, "What was corrected", "JSON: volumes before and after, time spent")] : []));
      document.getElementById("kept").textContent = now.state === "done"
        ? `Finished ${day(now.finished)}.${now.seconds === null ? "" : ` The computation took ${duration(now.seconds)}.`} The images and results are kept until ${day(now.deleted_on)}.` : "";
      report.replaceChildren(reportPart(now, address, again));
    },
    save: pictures.save,
    end: pictures.end,
  };
}

/** The viewer, with a button to correct the mask in it. */
function picturesPart(address, swatches, again) {
  let viewer = null;
  let turn = 0;
  let editing = false;
  const place = make("div", { class: "viewer", id: "viewer", "ongliomask-saved": () => {
    if (editing) words.textContent = WHILE_EDITING;
    again();
  } });
  const words = make("p", { class: "faint small", id: "edit-words" });
  const button = make("button", { id: "edit", onclick: () => show(!editing) });
  const save = async () => {
    const saved = await viewer?.save();
    if (saved === false) {
      words.textContent = NOT_SAVED;
      announce(NOT_SAVED);
    }
    return saved;
  };
  const show = async (edits) => {
    const mine = ++turn;
    button.disabled = true;
    if ((await save()) === false) {
      if (mine === turn) button.disabled = false;
      return;
    }
    await viewer?.destroy();
    viewer = null;
    delete place.dataset.ready;
    place.replaceChildren(make("p", { class: "faint" }, "Loading the images…"));
    const made = await showViewer(place, `${address}${edits ? "/edit" : ""}/scene`, swatches);
    if (mine !== turn) {
      made?.destroy();
      return;
    }
    viewer = made;
    editing = edits && made !== null;
    button.textContent = editing ? "End editing" : "Edit the mask";
    button.disabled = false;
    words.textContent = editing ? WHILE_EDITING : "Brush, eraser and other tools; the mask of the model stays as it is.";
    again();
  };
  return {
    element: make("div", {}, make("div", { class: "row" }, button, words), place),
    show,
    save,
    end: () => {
      turn += 1;
      viewer?.destroy();
      viewer = null;
    },
  };
}

function reportPart(job, address, again) {
  if (["queued", "running"].includes(job.state)) return make("p", { class: "faint" }, "The report is being made…");
  if (job.error !== null) return make("div", {}, make("p", { class: "problem" }, withNames(job, job.error)),
    make("button", { onclick: async (event) => {
      event.target.disabled = true;
      await ask(`${address}/start`, { method: "POST" }).catch((error) => announce(error.message));
      again();
    } }, "Make the report again"));
  return make("div", {}, make("a", { href: `${address}/report`, target: "_blank", rel: "noopener", class: "button" }, "Open the report"),
    " ", make("a", { href: `${address}/report`, download: `${job.title.replaceAll(" ", "_")}_report.html` }, "Save it"),
    job.raw && make("p", {}, make("a", { href: `${address}/quality`, target: "_blank", rel: "noopener", id: "quality" }, "Quality of the preparation"), make("span", { class: "faint small" }, " alignment and brain mask: look at it before you use the mask")));
}

function download(href, words, what) {
  return make("li", {}, make("a", { href, download: "" }, words), " ", make("span", { class: "faint small" }, what));
}

function volumeTable(job, about, swatches) {
  const regions = ["WT", "TC", "ET", "RC"];
  const names = Object.keys(job.volumes_ml);
  const row = (name) => {
    swatches[name] = make("span", { class: "swatch", hidden: true });
    return make("tr", {}, make("th", { scope: "row" }, swatches[name], about.names[name] ?? name, " ", make("abbr", { class: "faint" }, name)),
      make("td", {}, job.volumes_ml[name].toFixed(2)));
  };
  const body = (title, some) => some.length > 0 && make("tbody", {}, make("tr", {}, make("th", { colspan: 2, scope: "rowgroup", class: "group" }, title)), some.map(row));
  return make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Part"), make("th", { scope: "col" }, "mL"))),
    body("Regions, each inside the previous one", regions.filter((name) => names.includes(name))),
    body("Tissues", names.filter((name) => !regions.includes(name))));
}

async function showViewer(element, address, swatches) {
  try {
    const scene = await ask(address);
    for (const { name, color } of scene.regions) {
      if (!swatches[name]) continue;
      swatches[name].hidden = false;
      swatches[name].style.background = color;
    }
    const { createViewer } = await import("/viewer/viewer.js");
    element.replaceChildren();
    const made = await createViewer(element, scene);
    element.dataset.ready = "";
    return made;
  } catch (error) {
    element.replaceChildren(make("p", { class: "problem", role: "alert" },
      `The images cannot be shown here (${error.message}). The report also shows the mask, and the mask can be opened in any viewer.`));
    return null;
  }
}

function showEnd(job, again) {
  const words = {
    failed: "The computation failed",
    cancelled: "The computation was cancelled",
    interrupted: "The computation was interrupted",
  }[job.state];
  const retry = make("button", { class: "main", onclick: async () => {
    retry.disabled = true;
    await ask(`/api/jobs/${job.id}/start`, { method: "POST" }).catch((error) => announce(error.message));
    again();
  } }, "Start again");
  showPage(job.title, make("h1", {}, job.title),
    make("section", { class: "card" }, make("p", { class: "big" }, words),
      job.error && make("p", { class: "problem", role: "alert" }, withNames(job, job.error)),
      make("div", { class: "buttons" }, retry, make("button", { class: "quiet", onclick: async () => {
        if (!(await confirmDelete(`Delete “${job.title}” with its images? This cannot be undone.`))) return;
        await ask(`/api/jobs/${job.id}`, { method: "DELETE" }).catch(() => {});
        location.hash = "#/";
      } }, "Delete"))));
  return null;
}
