// Shows an enlarged slice of the strip; arrow keys move to its neighbours, Escape closes it.
(() => {
  "use strict";
  const box = document.getElementById("lightbox");
  const buttons = [...document.querySelectorAll(".strip button")];
  if (!box || !buttons.length) return;
  let at = 0;
  const show = (number) => {
    at = Math.min(buttons.length - 1, Math.max(0, number));
    const small = buttons[at].querySelector("img");
    const large = box.querySelector("img");
    large.src = small.src;
    large.alt = small.alt;
    box.querySelector("span").textContent = `${buttons[at].textContent.trim()} (${at + 1} of ${buttons.length})`;
    if (!box.open) box.showModal();
  };
  buttons.forEach((button, number) => button.addEventListener("click", () => show(number)));
  box.addEventListener("click", (event) => {
    const step = event.target.dataset.step;
    if (step === "0" || event.target === box) box.close();
    else if (step) show(at + Number(step));
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") show(at + 1);
    if (event.key === "ArrowLeft") show(at - 1);
  });
})();
