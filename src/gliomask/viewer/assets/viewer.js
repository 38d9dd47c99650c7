/** The viewer of a case: see gliomask/viewer/__init__.py for what a scene is. */
export async function createViewer(element, scene, options = {}) {
  element.classList.add("gliomask-viewer");
  element.textContent = `${scene.title}: ${scene.notice}`;
  return { destroy: () => element.replaceChildren() };
}
