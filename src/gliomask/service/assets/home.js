/** The first view: the upload area and the list of examinations. */

import { announce, confirmDelete, bytes, day, duration, make, plural, showPage } from "./dom.js";
import { ask, send } from "./server.js";

const ACCEPTED = /\.(nii|nii\.gz|zip)$/i;
const STATES = {
  uploaded: "Needs your attention",
  checked: "Ready to start",
  queued: "Waiting",
  running: "Running",
  done: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  interrupted: "Interrupted",
};
const DICOM_NAME = "image.dcm";

/** Show the view; returns how to end it. */
export async function showHome(about) {
  const list = make("div", { id: "jobs" });
  const drop = dropCard(about);
  showPage(
    "Examinations",
    make("h1", {}, "Segment a brain tumour in MRI"),
    make("div", { class: "columns" }, drop.element,
      make("section", { class: "card", "aria-labelledby": "list-heading" },
        make("h2", { id: "list-heading" }, "Examinations"), list)),
  );
  let timer;
  let shown = "";
  const refresh = async () => {
    try {
      const { jobs } = await ask("/api/jobs");
      const now = JSON.stringify(jobs);
      if (now !== shown && !list.contains(document.activeElement)) {
        list.replaceChildren(jobList(jobs, refresh, about));
        shown = now;
      } else if (shown === "") list.replaceChildren(jobList(jobs, refresh, about));
    } catch { /* shown at the top of the page */ }
    clearTimeout(timer);
    timer = setTimeout(refresh, 2000);
  };
  await refresh();
  const end = () => {
    clearTimeout(timer);
    timer = -1;
    drop.stop();
  };
  return { end };
}

function jobList(jobs, refresh, about) {
  if (!jobs.length) return make("p", { class: "faint" }, `None yet. Examinations are kept until they are deleted, at most ${plural(about.keep_days, "day")} after they are done.`);
  return make("ul", { class: "jobs" }, jobs.map((job) => make("li", {},
    make("a", { href: `#/jobs/${job.id}` }, job.title),
    make("span", { class: `state ${job.state}` }, STATES[job.state]),
    make("span", { class: "faint" }, detail(job)),
    !["queued", "running"].includes(job.state) && make("button", {
      class: "quiet", "aria-label": `Delete ${job.title}`,
      onclick: async (event) => {
        if (!(await confirmDelete(`Delete “${job.title}” with its images and results? This cannot be undone.`))) return;
        event.target.disabled = true;
        await ask(`/api/jobs/${job.id}`, { method: "DELETE" }).catch(() => {});
        announce(`${job.title} was deleted.`);
        document.getElementById("list-heading").closest("section").querySelector("a, h2")?.focus();
        document.activeElement?.blur();
        refresh();
      },
    }, "Delete"))));
}

function detail(job) {
  if (job.state === "queued") return `number ${job.position} in the queue`;
  if (job.state === "running") return job.seconds_left === null ? "" : `${duration(job.seconds_left)} left`;
  if (job.state === "done") return `${day(job.finished)} · whole tumour ${job.volumes_ml.WT?.toFixed(1) ?? "?"} mL`;
  return day(job.finished ?? job.created);
}

/** The card with the upload area. */
function dropCard(about) {
  let running = null;
  const said = make("div", { id: "said", "aria-live": "polite" });
  const bar = make("progress", { max: 1, value: 0, "aria-label": "Upload" });
  const stop = make("button", { onclick: () => running?.stop() }, "Stop the upload");
  const sending = make("div", { class: "sending", hidden: true }, make("p", {}, "Uploading…"), bar, stop);
  const take = async (files, others) => {
    said.replaceChildren();
    const problem = selectionProblem(files, others, about);
    if (problem) return showProblem(said, problem);
    sending.hidden = false;
    area.setAttribute("aria-busy", "true");
    running = send(files, others, "", (share) => {
      bar.value = share;
      sending.firstChild.textContent = share < 1 ? `Uploading… ${Math.round(100 * share)} %` : "Reading and checking the images…";
    });
    try {
      const job = await running.promise;
      announce(`${plural(job.images.length, "image")} uploaded. Check the sequences, then start.`);
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      if (error.message) showProblem(said, error.message, error.problems);
    } finally {
      running = null;
      sending.hidden = true;
      area.removeAttribute("aria-busy");
    }
  };
  const files = chooser("files", { multiple: true, ...(about.can_prepare ? {} : { accept: ".nii,.gz,.zip" }) }, about, take);
  const folder = chooser("folder", { webkitdirectory: true }, about, take);
  const area = make("div", {
    class: "drop",
    ondragover: (event) => { event.preventDefault(); area.classList.add("over"); },
    ondragleave: (event) => { if (!area.contains(event.relatedTarget)) area.classList.remove("over"); },
    ondrop: async (event) => {
      event.preventDefault();
      area.classList.remove("over");
      const found = await dropped(event.dataTransfer);
      take(...await splitByType(found, about));
    },
  },
  make("p", { class: "big" }, "Drop the images of one examination here"),
  make("p", { class: "faint" }, "T1, T1 with contrast, T2 and FLAIR, or those of them that you have: NIfTI files (.nii, .nii.gz), a zip of them, or their folder.", about.can_prepare && " Or the DICOM folder of the examination, as the scanner or the archive writes it."),
  make("div", { class: "buttons" },
    make("button", { class: "main", onclick: () => files.click() }, "Choose files"),
    make("button", { onclick: () => folder.click() }, "Choose a folder")),
  files, folder);
  const element = make("section", { class: "card", "aria-labelledby": "drop-heading" },
    make("h2", { id: "drop-heading" }, "New examination"), area, sending, said,
    make("ul", { class: "faint small" },
      make("li", {}, about.can_prepare ? "Images as the scanner made them are registered to each other and skull-stripped first; prepared images are taken as they are. They are checked before anything is computed."
        : "The images must be registered to each other on one grid, and skull-stripped. They are checked before the prediction is started."),
      make("li", {}, "File names and free text in the headers, which may contain a patient's name, are not stored.")));
  return { element, stop: () => running?.stop() };
}

function chooser(name, properties, about, take) {
  const input = make("input", { type: "file", hidden: true, name, id: `choose-${name}`, ...properties });
  input.addEventListener("change", async () => {
    const chosen = [...input.files];
    input.value = "";
    take(...await splitByType(chosen, about));
  });
  return input;
}

/** Separate possible images from other files. DICOM files are recognised by their content and sent without their names. */
async function splitByType(all, about) {
  const files = [];
  const others = [];
  for (const file of all) {
    if (ACCEPTED.test(file.name) && !file.name.startsWith(".")) files.push(file);
    else if (about.can_prepare && await isDicom(file)) files.push(new File([file], DICOM_NAME));
    else others.push(file);
  }
  return [files, others];
}

async function isDicom(file) {
  if (file.size < 132) return false;
  try {
    return (await file.slice(128, 132).text()) === "DICM";
  } catch {
    return false;
  }
}

function selectionProblem(files, others, about) {
  const size = files.reduce((sum, file) => sum + file.size, 0);
  if (!files.length && others.length) {
    const dicom = !about.can_prepare && others.some((file) => /\.(dcm|ima)$/i.test(file.name) || /dicomdir/i.test(file.name));
    const hint = dicom ? " These look like DICOM: convert each series to NIfTI first (dcm2niix does)." : "";
    return `There is no NIfTI file (.nii or .nii.gz)${about.can_prepare ? ", no DICOM file" : ""} and no zip among the ${plural(others.length, "file")}, such as ${others[0].name}.${hint}`;
  }
  if (!files.length) return "No file was chosen.";
  const most = files.some((file) => file.name === DICOM_NAME) ? about.most_study_files : about.most_files;
  if (files.length > most) return `${files.length} files were chosen; at most ${most} are accepted. Choose the files of one examination.`;
  if (size > about.most_upload_bytes) return `The files have ${bytes(size)}, more than this server accepts in one upload (${bytes(about.most_upload_bytes)}).`;
  return null;
}

function showProblem(place, text, problems = []) {
  place.replaceChildren(make("div", { class: "problem", role: "alert" }, make("p", {}, text),
    problems.length > 0 && make("ul", {}, problems.map((one) => make("li", {}, one)))));
}

/** Return all files that were dropped, including those in folders. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  for (const entry of entries) await collect(entry, found);
  return found;
}

async function collect(entry, found) {
  if (found.length > 20000) return;
  if (entry.isFile) {
    found.push(await new Promise((done, failed) => entry.file(done, failed)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const one of some) await collect(one, found);
  }
}
