// The strip: paints each change at once, and sends the whole mask. Numbers, names and reasons come as data and enter the page as text only.
// strip.py joins this file with changes.js, paint.js and acts.js to one module.

const LATER_MS = 80; // after a message the next one waits so long, with all that happened meanwhile
const MOST_UNDO = 100;
const MOST_PINNED = 3;
const MOST_REASONS = 3; // that are told at once
const minds = new WeakMap(); // what each strip on the page knows beside its data: the mask, its history, what is going on

export default function (component) {
  const { parentElement: place, data, setStateValue } = component;
  const mind = minds.get(place) ?? begin(place);
  Object.assign(mind, { data, tell: setStateValue });
  if (mind.base !== data.base) adopt(mind);
  if (mind.drawn !== data.drawn) draw(mind);
  Object.assign(mind.section.dataset, { number: mind.number, taken: data.taken });
  paint(mind);
  return () => flush(mind);
}

function begin(place) {
  const find = (what) => place.querySelector(what);
  const mind = { section: find(".strip"), scroller: find(".scroller"), grid: find(".grid"), focus: 0, number: 0, sentAt: -Infinity };
  for (const name of ["heads", "rows", "stuck", "count", "about", "said", "legend", "typed", "scale"]) mind[name] = find(`.${name}`);
  minds.set(place, mind);
  listen(mind);
  return mind;
}

// Another hand has changed the mask: a candidate was loaded, another model's recording was chosen, or this is the first run.
function adopt(mind) {
  const { data } = mind;
  mind.base = data.base;
  mind.dropped = new Set(data.dropped);
  mind.own = new Set(data.own);
  mind.undo = data.undo.map(copied);
  mind.redo = data.redo.map(copied);
  mind.number = Math.max(mind.number, data.taken);
  mind.look ??= { scale: data.scale, pinned: data.pinned ?? data.rows.filter((row) => row.kind === "damage").map((row) => row.key) };
  mind.stroke = null;
  clearTimeout(mind.timer);
  mind.timer = null;
}

// --- sending: the first change at once, later ones together -----------------------------------------------------------

function send(mind) {
  clearTimeout(mind.timer);
  mind.section.dataset.number = mind.number += 1;
  const wait = mind.sentAt + LATER_MS - performance.now();
  mind.timer = setTimeout(() => flush(mind), Math.max(wait, 0));
  if (wait <= 0) flush(mind);
}

function flush(mind) {
  if (!mind.timer) return;
  clearTimeout(mind.timer);
  mind.timer = null;
  mind.sentAt = performance.now();
  const [dropped, own] = now(mind);
  const { base, number, undo, redo, look } = mind;
  mind.tell("sent", { base, number, dropped, own, undo, redo, ...look });
}
