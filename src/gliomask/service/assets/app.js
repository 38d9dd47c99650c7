/** The page: which view is shown for which address. */

import { make, showPage } from "./dom.js";
import { showHome } from "./home.js";
import { showJob } from "./job.js";
import { ask } from "./server.js";

let about = null;
let leave = () => {};
let visit = 0;

async function show() {
  const number = ++visit;
  leave();
  leave = () => {};
  try {
    about ??= await ask("/api/about");
    describe();
    const [, kind, id] = location.hash.split("/");
    const left = kind === "jobs" && id ? await showJob(id, about) : await showHome(about);
    if (number === visit) leave = left;
    else left();
  } catch (error) {
    if (number !== visit) return;
    showPage("Not there", make("h1", {}, "That did not work"), make("p", { class: "problem", role: "alert" }, error.message),
      make("p", {}, make("a", { href: "#/" }, "To the list of examinations")));
    if (error.status === 0) setTimeout(() => number === visit && show(), 3000);
  }
}

function describe() {
  document.getElementById("about").textContent = `gliomask ${about.version}, model ${about.model}.`;
  document.getElementById("logout").hidden = !about.needs_token;
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
window.addEventListener("hashchange", show);
show();
