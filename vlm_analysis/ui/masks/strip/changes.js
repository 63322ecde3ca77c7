// Changes of the edit and the user's locks, with undo and redo. A step is [dropped layers, locked layers, and those in which vision tokens
// are absent, and frozen, the key of the width: one at most, and the layers of the vision encoder that are dropped].

const PARTS = ["dropped", "own", "absent", "frozen", "narrow", "tower"];
const copied = (step) => PARTS.map((_, place) => [...(step[place] ?? [])]);
const ascending = (layers) => [...layers].sort((one, other) => one - other);
const now = (mind) => PARTS.map((part) => ascending(mind[part]));
const hold = (mind, step) => PARTS.forEach((part, place) => (mind[part] = new Set(step[place])));
const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function change(mind, parts, joined = false) {
  const before = now(mind);
  for (const [part, layers] of Object.entries(parts)) mind[part] = new Set(layers);
  if (isSame(before, now(mind))) return false;
  if (!joined) {
    mind.undo = [...mind.undo, before].slice(-MOST_UNDO);
    mind.redo = [];
  }
  paint(mind);
  send(mind);
  return true;
}

function travel(mind, from, to) {
  const step = mind[from].pop();
  if (!step) return;
  mind[to].push(now(mind));
  hold(mind, step);
  paint(mind);
  send(mind);
}

// Why a layer cannot be dropped beside these; "" where it can.
function refusal(mind, layer, dropped) {
  const { locked, protected: risky, unprotected, count } = mind.data;
  if (locked[layer] !== undefined) return `Layer ${layer} is locked: ${locked[layer]}. It cannot be dropped.`;
  if (mind.own.has(layer)) return `Layer ${layer} is locked: you keep it. Press L on it to unlock it.`;
  if (risky[layer] !== undefined && !unprotected)
    return `Layer ${layer} is protected: ${risky[layer]}. Let protected layers go too, below the strip.`;
  return dropped.size + 1 === count ? `Layer ${layer} is the last one: one layer must stay. Keep another one first.` : "";
}

// Drop these layers, or keep them; why others stay is shown.
function put(mind, layers, drop, joined = false) {
  const dropped = new Set(mind.dropped);
  const reasons = [];
  for (const layer of layers) {
    const reason = drop && !dropped.has(layer) ? refusal(mind, layer, dropped) : "";
    if (reason) reasons.push(reason);
    else if (drop) dropped.add(layer);
    else dropped.delete(layer);
  }
  say(mind, reasons.slice(0, MOST_REASONS).join(" "));
  return change(mind, { dropped }, joined);
}

// What a layer is in a row, what a press makes of it, and how layers become that.
const isNow = (mind, row, layer) => (row === "vision" ? sightOf(mind, layer) : mind.dropped.has(layer));
const pressed = (mind, row, layer) => (row === "vision" ? AFTER[sightOf(mind, layer)] : !mind.dropped.has(layer));
const become = (mind, row, layers, what, joined) => (row === "vision" ? see : put)(mind, layers, what, joined);

function toggle(mind, row, layer) {
  mind.anchor = layer;
  if (row === "vision" && mind.dropped.has(layer)) {
    say(mind, `Layer ${layer} is cut: there are no vision tokens in it. Keep it first.`);
    return false;
  }
  return become(mind, row, [layer], pressed(mind, row, layer));
}

// All layers from the last one that was toggled in this row to this one become what that one is.
function extend(mind, row, layer) {
  const anchor = row === mind.row ? (mind.anchor ?? mind.focus) : mind.focus;
  become(mind, row, between(anchor, layer), isNow(mind, row, anchor));
}

function lock(mind, layer) {
  const reason = mind.data.locked[layer];
  if (reason !== undefined) return say(mind, `Layer ${layer} is locked: ${reason}. It stays anyway.`);
  const [dropped, own] = [new Set(mind.dropped), new Set(mind.own)];
  if (!own.delete(layer)) {
    own.add(layer);
    dropped.delete(layer);
  }
  say(mind, own.has(layer) ? `Layer ${layer} is locked: it stays.` : `Layer ${layer} is unlocked.`);
  change(mind, { dropped, own });
}

function between(one, other) {
  const first = Math.min(one, other);
  return Array.from({ length: Math.abs(one - other) + 1 }, (_, index) => first + index);
}

// --- the text field --------------------------------------------------------------------------------------------------

function shortened(layers) {
  const runs = [];
  for (const layer of layers) {
    const run = runs.at(-1);
    if (run && layer === run[1] + 1) run[1] = layer;
    else runs.push([layer, layer]);
  }
  return runs.map(([first, last]) => (last - first > 1 ? `${first}-${last}` : between(first, last).join(", "))).join(", ");
}

function understood(text, count) {
  const parts = text.replace(/^\s*drop\s*:?/i, "").replace(/^\s*none\s*$/i, "").replace(/\s*[-–]\s*/g, "-").split(/[\s,;]+/).filter(Boolean);
  return parts.flatMap((part) => {
    const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part) ?? [];
    if (first === undefined || +last >= count || +first > +last) throw part;
    return between(+first, +last);
  });
}

function take(mind) {
  const { count } = mind.data;
  try {
    const text = mind.typed.value;
    const place = text.search(VISION_WORD); // "4, 7; absent 13-15" says where vision tokens skip too
    const layers = new Set(understood(place < 0 ? text : text.slice(0, place), count));
    const sights = place < 0 ? null : text.slice(place);
    if (sights !== null) sightsIn(sights, count);
    let changed = sights !== null && takeSights(mind, sights);
    const why = mind.said.textContent;
    changed = put(mind, ascending(mind.dropped).filter((layer) => !layers.has(layer)), false, changed) || changed;
    put(mind, ascending(layers), true, changed);
    if (sights !== null) say(mind, `${why} ${mind.said.textContent}`.trim());
    mind.typed.value = shortened(now(mind)[0]);
  } catch (part) {
    if (typeof part !== "string") throw part;
    say(mind, `The layers are not understood: expected numbers and ranges in 0..${count - 1}, as in 4, 7, 12-14, got ${part.slice(0, 40)}. Correct the text.`);
  }
}
