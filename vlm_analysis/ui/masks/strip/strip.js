// The strip: paints each change at once, and sends the whole edit. Numbers, names and reasons come as data and enter the page as text only.
// strip.py joins this file with changes.js, vision.js, encoder.js, paint.js, beside.js, acts.js, address.js and leaving.js to one module.

const LATER_MS = 80; // after a message the next one waits so long, with all that happened meanwhile
const MOST_UNDO = 100;
const MOST_PINNED = 3;
const MOST_REASONS = 3; // that are shown at once
const minds = new WeakMap(); // what each strip on the page knows beside its data: the mask, its history, what is going on

export default function (component) {
  const { parentElement: place, data, setStateValue } = component;
  const mind = minds.get(place) ?? begin(place);
  Object.assign(mind, { data, tell: setStateValue });
  mind.asks = Math.max(mind.asks, data.answered);
  learn(mind);
  if (mind.base !== data.base) adopt(mind);
  if (mind.drawn !== data.drawn) draw(mind);
  Object.assign(mind.section.dataset, { number: mind.number, taken: data.taken });
  choices(mind);
  paint(mind);
  watch(mind);
  return () => leave(mind);
}

function begin(place) {
  arrive();
  const find = (what) => place.querySelector(what);
  const mind = { section: find(".strip"), scroller: find(".scroller"), grid: find(".grid"), focus: 0, row: "text", number: 0, sentAt: -Infinity };
  Object.assign(mind, { asks: 0, results: new Map(), askedOf: null, touched: null, edgeAt: 0 });
  for (const name of ["heads", "rows", "stuck", "count", "about", "said", "legend", "typed", "scale", "next", "auto", "left", "result", "bar-of-vision", "sights", "entry", "exit", "sight"]) mind[name] = find(`.${name}`);
  mind.encoder = findEncoder(place);
  minds.set(place, mind);
  listen(mind);
  return mind;
}

// Another hand has changed the mask: a candidate was loaded, another model's recording was chosen, or this is the first run.
function adopt(mind) {
  const { data } = mind;
  mind.base = data.base;
  hold(mind, PARTS.map((part) => data[part]));
  mind.undo = data.undo.map(copied);
  mind.redo = data.redo.map(copied);
  mind.number = Math.max(mind.number, data.taken);
  mind.look ??= { ...data.look, pinned: data.look.pinned ?? data.rows.filter((row) => row.kind === "damage").map((row) => row.key) };
  mind.stroke = mind.askedOf = null;
  mind.unsent = false;
  clearTimeout(mind.timer);
}

// --- sending: the first change at once, later ones together, a drag when it ends: drawing an answer would hold up its next cell ---------

function send(mind) {
  mind.unsent = true;
  mind.section.dataset.number = mind.number += 1;
  if (mind.stroke) return;
  clearTimeout(mind.timer);
  const wait = mind.sentAt + LATER_MS - performance.now();
  mind.timer = setTimeout(() => flush(mind), Math.max(wait, 0));
  if (wait <= 0) flush(mind);
  watch(mind);
}

function flush(mind, isLast = false) {
  if (!mind.unsent) return;
  clearTimeout(mind.timer);
  if (isLeaving() && !isLast) {
    mind.timer = setTimeout(() => flush(mind), LATER_MS);
    return;
  }
  mind.unsent = false;
  mind.sentAt = performance.now();
  const { base, number, undo, redo, look } = mind;
  const parts = Object.fromEntries(PARTS.map((part) => [part, ascending(mind[part])]));
  tellAddress(mind);
  mind.tell("sent", { base, number, ...parts, undo, redo, ...look });
}

// The page changes: what was not sent yet is, and nothing more is asked.
function leave(mind) {
  flush(mind, true);
  clearTimeout(mind.asking);
}
