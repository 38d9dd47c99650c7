/** The page: choose the view from the fragment of the address. */

import { make, showPage } from "./dom.js";
import { showHome } from "./home.js";
import { showJob } from "./job.js";
import { ask } from "./server.js";

let about = null;
let view = null; // what is shown: `end` ends it, and `save`, if it has one, resolves to whether all was saved
let address = location.hash;
let visit = 0;

/** Show the view that the fragment names. A view whose changes cannot be saved stays, and says so. */
async function show() {
  const number = ++visit;
  const saved = await view?.save?.();
  if (number !== visit) return;
  if (saved === false) {
    history.replaceState(null, "", address || "#/");
    return;
  }
  view?.end();
  view = null;
  address = location.hash;
  try {
    about ??= await ask("/api/about");
    describe();
    const [, kind, id] = location.hash.split("/");
    const made = kind === "jobs" && id ? await showJob(id, about) : await showHome(about);
    if (number === visit) view = made;
    else made.end();
  } catch (error) {
    if (number !== visit) return;
    showPage("Error", make("h1", {}, "An error occurred"), make("p", { class: "problem", role: "alert" }, error.message),
      make("p", {}, make("a", { href: "#/" }, "Back to the list of examinations")));
    if (error.status === 0) setTimeout(() => number === visit && show(), 3000);
  }
}

function describe() {
  document.getElementById("about").textContent =
    `gliomask ${about.version}, model ${about.model}${about.made_with ? ` (made with ${about.made_with})` : ""}.`;
  document.getElementById("logout").hidden = !about.needs_token;
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
window.addEventListener("hashchange", show);
show();
