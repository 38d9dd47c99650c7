import { createViewer } from "./viewer.js";

const element = document.getElementById("viewer");
try {
  const answer = await fetch("scene.json");
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const scene = await answer.json();
  document.title = `${scene.title} · gliomask`;
  await createViewer(element, scene);
  element.dataset.ready = "";
} catch (error) {
  element.textContent = `The case could not be shown: ${error.message}. Is gliomask view still running?`;
  element.setAttribute("role", "alert");
}
