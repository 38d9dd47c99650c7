/** Requests to the server. */

export class ServerError extends Error {
  constructor(status, detail, problems = []) {
    super(detail);
    this.status = status;
    this.problems = problems;
  }
}

/** The uploaded file names by job and image. They are kept in the memory of this page only. */
const fileNames = new Map();

/** The files that were chosen but are not used, with the reasons, by job; kept in the same way. */
const unused = new Map();

export function unusedFiles(job) {
  return unused.get(job.id) ?? [];
}

export function nameOf(job, image) {
  return fileNames.get(job.id)?.[image.name] ?? null;
}

/** Replace `image-1`, ... in a message of the server by the uploaded file names. */
export function withNames(job, text) {
  const names = fileNames.get(job.id);
  if (!names) return text.replace(/\bimage-(\d+)\b/g, "image $1");
  return text.replace(/\bimage-\d+\b/g, (name) => names[name] ?? name);
}

/** Send a request and return the JSON of the response; show a message at the top of the page if the server does not respond. */
export async function ask(path, { method = "GET", body, signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    offline(true);
    throw new ServerError(0, "The server does not respond.");
  }
  offline(false);
  if (answer.status === 401) location.assign("/login");
  if (answer.status === 204) return null;
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ServerError(answer.status, content.detail ?? `The server responded with status ${answer.status}.`, content.problems);
  return content;
}

/** Upload files; `others` were chosen with them and are not sent. Returns a promise of the job, and a function that stops the upload. */
export function send(files, others, title, onProgress) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  if (title) form.append("title", title);
  const request = new XMLHttpRequest();
  const promise = new Promise((done, failed) => {
    request.open("POST", "/api/jobs");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded / Math.max(event.total, 1)));
    request.addEventListener("load", () => {
      if (request.status === 401) location.assign("/login");
      const content = request.response ?? {};
      if (request.status === 201) {
        fileNames.set(content.id, content.file_names);
        unused.set(content.id, [...content.passed_over, ...others.map((file) => `${file.name}: is not a NIfTI file (.nii or .nii.gz)`)]);
        done(content);
      } else failed(new ServerError(request.status, content.detail ?? `The server responded with status ${request.status}.`, content.problems));
    });
    request.addEventListener("error", () => failed(new ServerError(0, "The upload was interrupted. Check that the server is running, then try again.")));
    request.addEventListener("abort", () => failed(new ServerError(0, "")));
    request.send(form);
  });
  return { promise, stop: () => request.abort() };
}

function offline(is) {
  const place = document.getElementById("offline");
  place.hidden = !is;
  if (is) place.textContent = "The server does not respond. Check that gliomask serve is running. This page keeps trying to connect.";
}
