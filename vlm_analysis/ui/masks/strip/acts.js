// What the user does: mouse, pen, finger, keys, buttons.

const EDGE_MS = 150; // between two layers that come into view while something is held at the edge

function focusOn(mind, row, layer, reveal = true) {
  if (row !== mind.row) mind.anchor = null;
  Object.assign(mind, { row, focus: layer });
  paint(mind);
  (row === "vision" ? mind.cells : mind.buttons)[layer].focus({ preventScroll: !reveal });
}

const cellOf = (event) => event.target.closest?.(".scroller [data-layer]"); // of the strip, not of the vision encoder's
const rowOf = (cell) => (cell.closest(".vision") ? "vision" : "text");

// Where the layers lie, read once for each press: reading it after a cell was painted would lay out the whole grid again.
function look(mind) {
  const [first, last] = [mind.buttons[0], mind.buttons.at(-1)].map((button) => button.parentElement.getBoundingClientRect());
  const shift = mind.scroller.scrollLeft;
  const left = mind.edit.firstElementChild.getBoundingClientRect().right;
  const { right } = mind.scroller.getBoundingClientRect();
  mind.place = { first: first.left + shift, width: (last.right - first.left) / mind.data.count, shift, left, right };
}

function layerAt({ place, data }, x) {
  const layer = Math.floor((x + place.shift - place.first) / place.width);
  return Math.min(Math.max(layer, 0), data.count - 1);
}

// Mouse, pen and finger paint while they are down. A finger's tap comes as a click; up and down it scrolls the page, and on the rows of
// numbers it pans the strip.
function press(mind, event) {
  const cell = cellOf(event);
  const byFinger = event.pointerType === "touch";
  mind.pressed = Boolean(cell) && !byFinger && event.button === 0;
  mind.touched = cell && byFinger && event.isPrimary && cell.closest(".edit, .vision") ? Number(cell.dataset.layer) : null;
  mind.pressedRow = cell ? rowOf(cell) : null;
  if (!mind.pressed && mind.touched === null) return;
  look(mind);
  if (byFinger) return;
  const layer = Number(cell.dataset.layer);
  if (event.shiftKey) extend(mind, mind.pressedRow, layer);
  else beginStroke(mind, layer);
  focusOn(mind, mind.pressedRow, layer, false);
  mind.anchor ??= layer;
  mind.scroller.setPointerCapture(event.pointerId);
}

function beginStroke(mind, layer) {
  const row = mind.pressedRow;
  const what = pressed(mind, row, layer);
  mind.stroke = { row, what, last: layer, changed: toggle(mind, row, layer) };
  clearTimeout(mind.timer);
  watch(mind);
}

function move(mind, event) {
  if (mind.stroke ? !mind.stroke.row : mind.touched === null) return; // a slider's stroke is of no row
  const layer = layerAt(mind, event.clientX);
  if (!mind.stroke) {
    if (layer === mind.touched) return;
    beginStroke(mind, mind.touched);
    mind.pressed = true; // no click comes of it
  }
  const { stroke } = mind;
  followEdge(mind, event.clientX);
  if (layer === stroke.last) return;
  const passed = between(stroke.last, layer);
  stroke.last = mind.anchor = layer;
  stroke.changed = become(mind, stroke.row, passed, stroke.what, stroke.changed) || stroke.changed;
}

// A strip that is wider than the screen goes along, a layer at a time, when its edge is reached.
function followEdge(mind, x) {
  const { left, right, width } = mind.place;
  if (performance.now() < mind.edgeAt + EDGE_MS) return;
  mind.edgeAt = performance.now();
  if (x > right - width / 2) mind.scroller.scrollLeft += width;
  else if (x < left + width / 2) mind.scroller.scrollLeft -= width;
}

function release(mind) {
  const { stroke } = mind;
  mind.stroke = mind.touched = null;
  if (!stroke) return;
  flush(mind);
  watch(mind);
}

function click(mind, event) {
  const { target } = event;
  const action = target.closest("[data-do]")?.dataset.do;
  const held = target.closest("[data-pin]");
  const cell = cellOf(event);
  if (action) ACTIONS[action](mind);
  else if (held) pin(mind, held.dataset.pin);
  else if (cell && !(mind.pressed && event.detail)) {
    const layer = Number(cell.dataset.layer);
    if (event.shiftKey) extend(mind, rowOf(cell), layer);
    else toggle(mind, rowOf(cell), layer);
    focusOn(mind, rowOf(cell), layer, false);
    mind.anchor ??= layer;
  }
}

const ACTIONS = {
  undo: (mind) => travel(mind, "undo", "redo"),
  redo: (mind) => travel(mind, "redo", "undo"),
  clear: (mind) => change(mind, { dropped: [], absent: [], frozen: [], narrow: [], tower: [] }),
  whole: (mind) => change(mind, { narrow: [] }),
  propose: (mind) => propose(mind),
  restore: (mind) => putTower(mind, ascending(mind.tower), false),
  lock: (mind) => lock(mind, mind.focus),
  evaluate: (mind) => ask(mind, true),
};

function escape(mind) {
  const { stroke } = mind;
  mind.stroke = mind.anchor = null;
  if (stroke?.changed) {
    travel(mind, "undo", "redo");
    mind.redo.pop();
  }
  say(mind, "");
  paint(mind);
}

function key(mind, event) {
  const { target } = event;
  if ([mind.typed, mind.sights].includes(target)) return typedKey(mind, event);
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") ACTIONS[event.shiftKey ? "redo" : "undo"](mind);
  else if (event.key === "Escape") escape(mind);
  else if (!(target.dataset.pin ? alongPins : alongLayers)(mind, event)) return;
  event.preventDefault();
}

function typedKey(mind, event) {
  if (event.key !== "Escape") return;
  say(mind, "");
  mind.typed.value = shortened(now(mind)[0]);
  mind.sights.value = inWords(mind);
}

function alongLayers(mind, event) {
  if (!cellOf(event)) return false;
  const last = mind.data.count - 1;
  const to = { ArrowLeft: mind.focus - 1, ArrowRight: mind.focus + 1, Home: 0, End: last }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const row = { ArrowUp: "text", ArrowDown: "vision" }[event.key];
  if (row && isSeen(mind)) focusOn(mind, row, mind.focus);
  else if (event.key.toLowerCase() === "l") lock(mind, mind.focus);
  else if (to === undefined) return false;
  else if (to >= 0 && to <= last) {
    mind.anchor ??= mind.focus;
    if (event.shiftKey) extend(mind, mind.row, to);
    else mind.anchor = null;
    focusOn(mind, mind.row, to);
  }
  return true;
}

function alongPins(mind, event) {
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const next = mind.pins[mind.pins.indexOf(event.target) + step];
  if (!step || !next) return false;
  mind.pins.forEach((one) => (one.tabIndex = one === next ? 0 : -1));
  next.focus();
  return true;
}

// The focus may come by a screen reader or a script too.
function focused(mind, event) {
  const cell = cellOf(event);
  if (!cell?.closest(".edit, .vision")) return;
  const [row, focus] = [rowOf(cell), Number(cell.dataset.layer)];
  if (focus === mind.focus && row === mind.row) return;
  if (row !== mind.row) mind.anchor = null;
  Object.assign(mind, { row, focus });
  paint(mind);
}

function listen(mind) {
  const { section, scroller } = mind;
  scroller.addEventListener("pointerdown", (event) => press(mind, event));
  scroller.addEventListener("pointermove", (event) => move(mind, event));
  for (const end of ["pointerup", "pointercancel"]) scroller.addEventListener(end, () => release(mind));
  scroller.addEventListener("scroll", () => mind.place && (mind.place.shift = scroller.scrollLeft), { passive: true });
  scroller.addEventListener("mousedown", (event) => cellOf(event) && event.preventDefault()); // the focus is set in `press`
  for (const look of ["pointerover", "focusin"])
    scroller.addEventListener(look, (event) => cellOf(event) && tellAbout(mind, cellOf(event)));
  scroller.addEventListener("focusin", (event) => focused(mind, event));
  section.addEventListener("click", (event) => click(mind, event));
  section.addEventListener("keydown", (event) => key(mind, event));
  section.addEventListener("pointerleave", () => flush(mind));
  listenEncoder(mind);
  mind.typed.addEventListener("change", () => take(mind));
  mind.sights.addEventListener("change", () => takeTypedSights(mind));
  for (const slider of [mind.entry, mind.exit]) {
    slider.addEventListener("input", () => slide(mind, slider));
    slider.addEventListener("change", () => release(mind));
  }
  const choose = (box, take) => box.addEventListener("change", () => (take(), send(mind)));
  choose(mind.scale, () => ((mind.look.scale = mind.scale.value), colour(mind), paint(mind)));
  choose(mind.next, () => ((mind.look.next_by = mind.next.value), paint(mind)));
  choose(mind.sight, () => ((mind.look.vision = mind.sight.checked), paint(mind)));
  choose(mind.auto, () => ((mind.look.auto = mind.auto.checked), paint(mind)));
}
