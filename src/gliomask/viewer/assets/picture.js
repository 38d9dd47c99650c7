/** Save the visible slices as a PNG with a legend. */

const LINE = 26;
const MARGIN = 12;

/** Draw the canvases in their arrangement with text below, and let the browser save the picture. */
export async function savePicture({ title, notice, figures, legend, place }) {
  const boxes = figures.map(({ figure }) => figure.getBoundingClientRect());
  const left = Math.min(...boxes.map((box) => box.left));
  const top = Math.min(...boxes.map((box) => box.top));
  const scale = figures[0].stage.picture.width / figures[0].stage.picture.clientWidth;
  const width = Math.max(...boxes.map((box) => box.right)) - left;
  const height = Math.max(...boxes.map((box) => box.bottom)) - top;
  const picture = document.createElement("canvas");
  const rows = legend.length ? 3 : 2;
  picture.width = Math.round(width * scale);
  picture.height = Math.round((height + rows * LINE + MARGIN) * scale);
  const draw = picture.getContext("2d");
  draw.scale(scale, scale);
  draw.fillStyle = "#000000";
  draw.fillRect(0, 0, width, height + rows * LINE + MARGIN);
  draw.font = "14px system-ui, sans-serif";
  draw.textBaseline = "middle";
  for (const { stage, figure } of figures) {
    stage.draw(); // drawn right before it is copied, because a WebGL canvas is cleared after it was shown
    for (const canvas of [stage.picture, stage.canvas]) {
      const box = canvas.getBoundingClientRect();
      draw.drawImage(canvas, box.left - left, box.top - top, box.width, box.height);
    }
    for (const text of figure.querySelectorAll("figcaption, .tile:not([hidden]) :is(.plane, .count, .letter)")) {
      const box = text.getBoundingClientRect();
      draw.font = getComputedStyle(text).font;
      draw.fillStyle = "#e8e8e8";
      draw.fillText(text.textContent, box.left - left, box.top - top + box.height / 2);
    }
  }
  draw.font = "14px system-ui, sans-serif";
  const line = (number) => height + MARGIN / 2 + (number + 0.5) * LINE;
  draw.fillStyle = "#e8e8e8";
  draw.fillText(`${title}   ${place}`, MARGIN, line(0));
  let at = MARGIN;
  for (const { name, label, color } of legend) {
    draw.fillStyle = color;
    draw.fillRect(at, line(1) - 7, 14, 14);
    draw.fillStyle = "#e8e8e8";
    draw.fillText(`${name} ${label}`, at + 20, line(1));
    at += 20 + draw.measureText(`${name} ${label}`).width + 24;
  }
  draw.fillStyle = "#a8a8a8";
  draw.fillText(`${notice} R and L are the patient's right and left.`, MARGIN, line(rows - 1));
  const content = await new Promise((done) => picture.toBlob(done, "image/png"));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = `${title.replace(/[^\w.-]+/g, "_")}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
