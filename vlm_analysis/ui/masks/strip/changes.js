// Changes of the mask and the user's locks, with undo and redo. A step is [dropped layers, locked layers].

const copied = ([dropped, own]) => [[...dropped], [...own]];
const ascending = (layers) => [...layers].sort((one, other) => one - other);
const now = (mind) => [ascending(mind.dropped), ascending(mind.own)];
const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function change(mind, dropped, own, joined = false) {
  const before = now(mind);
  mind.dropped = new Set(dropped);
  mind.own = new Set(own);
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
  [mind.dropped, mind.own] = step.map((layers) => new Set(layers));
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

// Drop these layers, or keep them; those that stay are told with the reason.
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
  return change(mind, dropped, mind.own, joined);
}

function toggle(mind, layer) {
  mind.anchor = layer;
  return put(mind, [layer], !mind.dropped.has(layer));
}

// All layers from the last one that was toggled to this one become what that one is.
function extend(mind, layer) {
  const anchor = mind.anchor ?? mind.focus;
  put(mind, between(anchor, layer), mind.dropped.has(anchor));
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
  change(mind, dropped, own);
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
    const layers = new Set(understood(mind.typed.value, count));
    const changed = put(mind, ascending(mind.dropped).filter((layer) => !layers.has(layer)), false);
    put(mind, ascending(layers), true, changed);
    mind.typed.value = shortened(now(mind)[0]);
  } catch (part) {
    if (typeof part !== "string") throw part;
    say(mind, `The layers are not understood: expected numbers and ranges in 0..${count - 1}, as in 4, 7, 12-14, got ${part.slice(0, 40)}. Correct the text.`);
  }
}
