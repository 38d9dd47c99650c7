/** The page: choose the view from the fragment of the address. */

import { make, showPage } from "./dom.js";
import { showHome } from "./home.js";
import { showJob } from "./job.js";
import { ask } from "./server.js";

let about = null;
let leaveView = () => {};
let visit = 0;

async function show() {
  const number = ++visit;
  leaveView();
  leaveView = () => {};
  try {
    about ??= await ask("/api/about");
    describe();
    const [, kind, id] = location.hash.split("/");
    const leave = kind === "jobs" && id ? await showJob(id, about) : await showHome(about);
    if (number === visit) leaveView = leave;
    else leave();
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
