// The second row: in which layers vision tokens are full, frozen (seen, not updated) or absent (hidden from text).

const AFTER = { full: "frozen", frozen: "absent", absent: "full" }; // what a press makes of a cell
const SIGHTS = {
  full: { mark: "", name: "vision tokens full", pressed: "false" },
  frozen: { mark: "F", name: "vision tokens frozen: seen, not updated", pressed: "mixed" },
  absent: { mark: "×", name: "vision tokens absent: hidden from text", pressed: "true" },
};
const SAID = { // what is typed before layers
  absent: "absent", hidden: "absent", hide: "absent", frozen: "frozen", freeze: "frozen",
  late: "enter", entry: "enter", enter: "enter", early: "leave", exit: "leave", leave: "leave",
};
const LEFT_OUT = ["vision", "at", "from", "in", "layer", "layers", "full", "none"];
const VISION_WORD = new RegExp(`\\b(?:vision|${Object.keys(SAID).join("|")})\\b`, "i");

const sightOf = ({ absent, frozen }, layer) => (absent.has(layer) ? "absent" : frozen.has(layer) ? "frozen" : "full");
const isSeen = (mind) => Boolean(mind.look.vision || mind.absent.size || mind.frozen.size);

// Layers that are there and in which vision tokens are so.
const skipped = (mind, sight) => ascending(mind[sight]).filter((layer) => !mind.dropped.has(layer));

const cannotSkip = ({ data }, layer) =>
  data.vision_locked[layer] === undefined ? "" : `Vision tokens cannot skip layer ${layer}: ${data.vision_locked[layer]}.`;

// Make vision tokens so in these layers; why others stay full is shown.
function see(mind, layers, sight, joined = false) {
  return seeAll(mind, layers.map((layer) => [layer, sight]), joined);
}

function seeAll(mind, cells, joined) {
  const parts = { absent: new Set(mind.absent), frozen: new Set(mind.frozen) };
  const reasons = new Set();
  for (const [layer, sight] of cells) {
    const reason = sight === "full" ? "" : cannotSkip(mind, layer);
    if (reason) reasons.add(reason);
    for (const part of Object.values(parts)) part.delete(layer);
    if (!reason) parts[sight]?.add(layer);
  }
  say(mind, [...reasons].slice(0, MOST_REASONS).join(" "));
  return change(mind, parts, joined);
}

// --- late entry and early exit ---------------------------------------------------------------------------------------

// Where vision tokens enter: behind the absent layers at the beginning. Dropped ones do not count.
function entryOf(mind) {
  let entry = 0;
  for (let layer = 0; mind.absent.has(layer) || mind.dropped.has(layer); layer += 1) if (mind.absent.has(layer)) entry = layer + 1;
  return entry;
}

function exitOf(mind) {
  let exit = mind.data.count;
  for (let layer = exit - 1; mind.absent.has(layer) || mind.dropped.has(layer); layer -= 1) if (mind.absent.has(layer)) exit = layer;
  return exit;
}

// A slider was moved: until it is let go, all is one step.
function slide(mind, slider) {
  const { count } = mind.data;
  const isEntry = slider === mind.entry;
  const [now, to] = [(isEntry ? entryOf : exitOf)(mind), Number(slider.value)];
  const hidden = isEntry ? between(0, to).slice(0, -1) : between(to, count).slice(0, -1);
  const shown = isEntry ? between(to, Math.max(now, to)).slice(0, -1) : between(Math.min(now, to), to).slice(0, -1);
  mind.stroke ??= { changed: false };
  const cells = [...shown.map((layer) => [layer, "full"]), ...hidden.map((layer) => [layer, "absent"])];
  mind.stroke.changed = seeAll(mind, cells, mind.stroke.changed) || mind.stroke.changed;
  bars(mind);
}

// --- the text field --------------------------------------------------------------------------------------------------

const inWords = (mind) =>
  ["absent", "frozen"].filter((sight) => skipped(mind, sight).length).map((sight) => `${sight} ${shortened(skipped(mind, sight))}`).join("; ");

// What "absent 0-2; frozen 9", "enter 3" or "leave 13" says, as sets of layers; throws the part that says nothing.
function sightsIn(text, count) {
  const found = { absent: new Set(), frozen: new Set() };
  let said = null;
  for (const part of text.replace(/\s*[-–]\s*/g, "-").split(/[\s,;:]+/).filter(Boolean)) {
    const word = part.toLowerCase();
    if (SAID[word]) said = SAID[word];
    else if (!LEFT_OUT.includes(word)) layersSaid(part, said, count).forEach((layer) => found[said === "frozen" ? said : "absent"].add(layer));
  }
  found.absent.forEach((layer) => found.frozen.delete(layer));
  return found;
}

function layersSaid(part, said, count) {
  if (said === null) throw part;
  if (said !== "enter" && said !== "leave") return understood(part, count);
  if (!/^\d{1,5}$/.test(part) || +part > count) throw part;
  return said === "enter" ? between(0, +part).slice(0, -1) : between(+part, count).slice(0, -1);
}

function takeSights(mind, text, joined = false) {
  const { count } = mind.data;
  const { absent, frozen } = sightsIn(text, count);
  const sight = (layer) => (absent.has(layer) ? "absent" : frozen.has(layer) ? "frozen" : "full");
  return seeAll(mind, between(0, count - 1).map((layer) => [layer, sight(layer)]), joined);
}

function takeTypedSights(mind) {
  const { count } = mind.data;
  try {
    takeSights(mind, mind.sights.value);
    mind.sights.value = inWords(mind);
  } catch (part) {
    if (typeof part !== "string") throw part;
    say(mind, `Where vision tokens skip is not understood: expected absent, frozen, enter or leave and layers in 0..${count - 1}, as in absent 0-2; frozen 9, got ${part.slice(0, 40)}. Correct the text.`);
  }
}

// --- drawing ---------------------------------------------------------------------------------------------------------

function visionRow(mind, numbers) {
  mind.cells = numbers.map((layer) => made("button", { type: "button", "data-layer": layer, tabindex: -1 }, layer));
  mind.vision = line(made("span", { role: "rowheader" }, "vision"), mind.cells.map(inCell));
  mind.vision.classList.add("vision");
  mind.seen = [];
  for (const slider of [mind.entry, mind.exit]) slider.max = mind.data.count;
}

function sightShown(mind, layer) {
  if (mind.dropped.has(layer)) return { look: "none", mark: "", name: "no vision tokens: the layer is cut", pressed: "false" };
  const locked = mind.data.vision_locked[layer];
  if (locked !== undefined) return { look: "locked", mark: "L", name: `vision tokens full, and cannot skip: ${locked}`, pressed: "false" };
  const look = sightOf(mind, layer);
  return { look, ...SIGHTS[look] };
}

function paintVision(mind) {
  const seen = isSeen(mind);
  mind.sight.checked = seen;
  mind.sight.disabled = seen && !mind.look.vision;
  mind.sight.title = mind.sight.disabled ? "They skip layers in this edit: press Clear, or make them full." : "";
  mind["bar-of-vision"].hidden = !seen;
  if (mind.isSeen !== seen) {
    mind.isSeen = seen;
    if (!seen) mind.row = "text";
    mind.edit.firstElementChild.textContent = seen ? "text" : "edit";
    arrange(mind);
  }
  if (!seen) return;
  mind.cells.forEach((button, layer) => {
    const { look, mark, name, pressed } = sightShown(mind, layer);
    const focused = mind.row === "vision" && layer === mind.focus;
    const key = `${look} ${mark} ${name} ${focused}`;
    if (mind.seen[layer] === key) return;
    mind.seen[layer] = key;
    button.className = look;
    button.dataset.mark = mark;
    button.tabIndex = focused ? 0 : -1;
    button.setAttribute("aria-label", `layer ${layer}, ${name}`);
    button.setAttribute("aria-pressed", pressed);
  });
  bars(mind);
  if (mind.sights !== mind.sights.getRootNode().activeElement) mind.sights.value = inWords(mind);
}

function bars(mind) {
  const { count } = mind.data;
  const all = mind.cells.every((_, layer) => cannotSkip(mind, layer));
  const [entry, exit] = [entryOf(mind), exitOf(mind)];
  const ends = [[mind.entry, entry, entry === 0 ? "at layer 0" : entry === count ? "never" : `at layer ${entry}`], [mind.exit, exit, exit === count ? "never" : `at layer ${exit}`]];
  for (const [slider, value, words] of ends) {
    slider.disabled = all;
    slider.value = value;
    slider.setAttribute("aria-valuetext", words);
    slider.nextElementSibling.textContent = words;
  }
}
