// What the user does: mouse, pen, finger, keys, buttons.

function focusOn(mind, layer, reveal = true) {
  mind.focus = layer;
  paint(mind);
  mind.buttons[layer].focus({ preventScroll: !reveal });
}

const cellOf = (event) => event.target.closest?.("[data-layer]");

function layerAt(mind, x) {
  const [first, last] = [mind.buttons[0], mind.buttons.at(-1)].map((button) => button.parentElement.getBoundingClientRect());
  const layer = Math.floor(((x - first.left) / (last.right - first.left)) * mind.data.count);
  return Math.min(Math.max(layer, 0), mind.data.count - 1);
}

// A finger pans the strip, and its tap comes as a click; mouse and pen paint while they are down.
function press(mind, event) {
  const cell = cellOf(event);
  mind.pressed = Boolean(cell) && event.pointerType !== "touch" && event.button === 0;
  if (!mind.pressed) return;
  const layer = Number(cell.dataset.layer);
  const drop = !mind.dropped.has(layer);
  if (event.shiftKey) extend(mind, layer);
  else mind.stroke = { drop, last: layer, changed: toggle(mind, layer) };
  focusOn(mind, layer, false);
  mind.scroller.setPointerCapture(event.pointerId);
}

function move(mind, event) {
  const { stroke } = mind;
  if (!stroke) return;
  const layer = layerAt(mind, event.clientX);
  if (layer === stroke.last) return;
  const passed = between(stroke.last, layer);
  stroke.last = mind.anchor = layer;
  stroke.changed = put(mind, passed, stroke.drop, stroke.changed) || stroke.changed;
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
    if (event.shiftKey) extend(mind, layer);
    else toggle(mind, layer);
    focusOn(mind, layer, false);
  }
}

const ACTIONS = {
  undo: (mind) => travel(mind, "undo", "redo"),
  redo: (mind) => travel(mind, "redo", "undo"),
  clear: (mind) => change(mind, [], mind.own),
  lock: (mind) => lock(mind, mind.focus),
};

function escape(mind) {
  if (mind.stroke?.changed) {
    travel(mind, "undo", "redo");
    mind.redo.pop();
  }
  mind.stroke = mind.anchor = null;
  say(mind, "");
  paint(mind);
}

function key(mind, event) {
  const { target } = event;
  if (target === mind.typed) return typedKey(mind, event);
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") ACTIONS[event.shiftKey ? "redo" : "undo"](mind);
  else if (event.key === "Escape") escape(mind);
  else if (!(target.dataset.pin ? alongPins : alongLayers)(mind, event)) return;
  event.preventDefault();
}

function typedKey(mind, event) {
  if (event.key !== "Escape") return;
  say(mind, "");
  mind.typed.value = shortened(now(mind)[0]);
}

function alongLayers(mind, event) {
  if (!cellOf(event)) return false;
  const last = mind.data.count - 1;
  const to = { ArrowLeft: mind.focus - 1, ArrowRight: mind.focus + 1, Home: 0, End: last }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (event.key.toLowerCase() === "l") lock(mind, mind.focus);
  else if (to === undefined) return false;
  else if (to >= 0 && to <= last) {
    mind.anchor ??= mind.focus;
    if (event.shiftKey) extend(mind, to);
    else mind.anchor = null;
    focusOn(mind, to);
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

function listen(mind) {
  const { section, scroller } = mind;
  scroller.addEventListener("pointerdown", (event) => press(mind, event));
  scroller.addEventListener("pointermove", (event) => move(mind, event));
  for (const end of ["pointerup", "pointercancel"]) scroller.addEventListener(end, () => (mind.stroke = null));
  scroller.addEventListener("mousedown", (event) => cellOf(event) && event.preventDefault()); // the focus is set in `press`
  for (const look of ["pointerover", "focusin"])
    scroller.addEventListener(look, (event) => cellOf(event) && tellAbout(mind, cellOf(event)));
  section.addEventListener("click", (event) => click(mind, event));
  section.addEventListener("keydown", (event) => key(mind, event));
  section.addEventListener("pointerleave", () => flush(mind));
  mind.typed.addEventListener("change", () => take(mind));
  mind.scale.addEventListener("change", () => {
    mind.look.scale = mind.scale.value;
    colour(mind);
    send(mind);
  });
}
