/** Mouse, pen and touch on the pictures. */

const TAP = 6; // pixels that a click may move
const PER_SLICE = 10; // pixels of a finger's way for one slice
const NOTCH = 40; // pixels of scrolling for one slice, on devices that scroll by less than that

/** Handle the pointer on a stage; `acts` is the viewer. */
export function listenToPointer(stage, acts) {
  const { canvas } = stage;
  const fingers = new Map();
  let drag = null;
  let pinch = null;
  let scrolled = 0;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const on = (name, does) => canvas.addEventListener(name, does, { passive: false });

  on("wheel", (event) => {
    event.preventDefault();
    const [x, y] = at(event);
    const plane = stage.planeAt(x, y);
    const delta = (event.deltaY || event.deltaX) * (event.deltaMode === 1 ? 33 : event.deltaMode === 2 ? 400 : 1);
    if (!plane || !delta || acts.painting()) return;
    if (event.ctrlKey || event.metaKey || plane === "space") {
      acts.zoomAt(stage, x, y, Math.exp(-Math.sign(delta) * Math.min(0.2, Math.abs(delta) / 150)));
      return;
    }
    scrolled = Math.abs(delta) >= NOTCH ? delta : Math.sign(scrolled) === Math.sign(delta) ? scrolled + delta : delta;
    if (Math.abs(scrolled) < NOTCH) return;
    acts.stepSlice(stage, plane, -Math.sign(scrolled) * (event.shiftKey ? 10 : 1));
    scrolled = 0;
  });
  on("contextmenu", (event) => event.preventDefault());
  on("dblclick", (event) => {
    event.preventDefault();
    const plane = stage.planeAt(...at(event));
    if (plane && acts.tool() === "crosshair") acts.maximize(plane);
  });
  on("pointerdown", (event) => {
    const [x, y] = at(event);
    const plane = stage.planeAt(x, y);
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
    if (event.pointerType === "touch") {
      fingers.set(event.pointerId, [x, y]);
      if (fingers.size === 2) {
        if (drag?.tool) acts.cancel(stage);
        drag = null;
        pinch = spread(fingers);
        return;
      }
    }
    if (!plane || drag || fingers.size > 2) return;
    const slice = stage.sliceAt(x, y);
    const tool = plane === "space" ? "rotate" : toolOf(event, acts.tool());
    drag = { tool, plane, slice, x, y, from: [x, y], way: 0, moved: false, finger: event.pointerType === "touch" };
    acts.choose(plane);
    if (slice && !(drag.finger && tool === "crosshair")) acts.start(stage, drag, event);
  });
  on("pointermove", (event) => {
    const [x, y] = at(event);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, [x, y]);
    if (pinch) {
      const now = spread(fingers);
      if (fingers.size === 2 && pinch.size > 0) acts.pinch(stage, pinch, now);
      pinch = now;
      return;
    }
    if (!drag) {
      acts.hover(stage, x, y);
      return;
    }
    drag.moved ||= Math.hypot(x - drag.from[0], y - drag.from[1]) > TAP;
    if (drag.tool === "rotate") stage.rotate(x - drag.x, y - drag.y);
    else if (drag.finger && drag.tool === "crosshair") {
      drag.way += y - drag.y;
      const steps = Math.trunc(drag.way / PER_SLICE);
      if (steps) acts.stepSlice(stage, drag.plane, -steps);
      drag.way -= steps * PER_SLICE;
    } else if (drag.slice) acts.drag(stage, drag, x, y, event);
    [drag.x, drag.y] = [x, y];
  });
  const end = (event) => {
    fingers.delete(event.pointerId);
    if (pinch) {
      if (!fingers.size) pinch = null;
      return;
    }
    if (!drag) return;
    const done = drag;
    drag = null;
    if (event.type === "pointercancel") acts.cancel(stage);
    else if (done.finger && done.tool === "crosshair") {
      if (!done.moved && done.slice) acts.pick(stage, done.slice, done.x, done.y);
    } else if (done.slice) acts.finish(stage, done);
  };
  on("pointerup", end);
  on("pointercancel", end);
  on("pointerleave", () => acts.hover(stage, -1, -1));
}

/** What a drag does: the right button windows, the middle button or Shift moves, the left button uses the tool. */
function toolOf(event, chosen) {
  if (event.button === 2) return "window";
  if (event.button === 1 || (event.shiftKey && chosen !== "eraser" && chosen !== "brush")) return "move";
  return chosen;
}

function spread(fingers) {
  const [[x0, y0], [x1, y1]] = fingers.size > 1 ? [...fingers.values()] : [[0, 0], [0, 0]];
  return { x: (x0 + x1) / 2, y: (y0 + y1) / 2, size: Math.hypot(x1 - x0, y1 - y0) };
}
