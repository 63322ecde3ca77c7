// What stands beside the strip: what is left of the model, and how much of its answers. The first is computed here at once; the second is
// asked of Python once the mask has come to rest, and looked for again while it is being measured.

const REST_MS = 600; // without an edit, before Python is asked
const LOOK_MS = 700; // between two looks while the mask is evaluated
const LATER_LOOK_MS = 2500; // while other work goes on first
const MOST_IN_ORDER = 4; // domains
const UNITS = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];

// As `key_of` in left.py writes it.
const keyOf = (mind) => [ascending(mind.dropped), skipped(mind, "absent"), skipped(mind, "frozen"), [...mind.narrow], ascending(mind.tower)].map((part) => part.join(",")).join("|");
const percent = (share) => `${Math.round(100 * share)}%`;
const sumOver = (numbers, layers) => [...layers].reduce((sum, layer) => sum + numbers[layer], 0);

function counted(number) {
  if (number >= 1e9) return `${(number / 1e9).toFixed(2)} billion`;
  return number >= 1e6 ? `${(number / 1e6).toFixed(2)} million` : number.toLocaleString("en");
}

function sized(bytes) {
  const [size, unit] = UNITS.find(([one]) => bytes >= one) ?? [1, "bytes"];
  return `${(bytes / size).toFixed(2)} ${unit}`;
}

function beside(mind) {
  const { count, costs } = mind.data;
  const { dropped, tower } = mind;
  const narrow = narrowLayers(mind);
  const facts = [["layers left", `${count - dropped.size} of ${count}`, narrow.length ? `${narrow.length} narrow` : ""]];
  const [absent, frozen] = ["absent", "frozen"].map((part) => skipped(mind, part).length);
  if (absent || frozen) facts.push(["see vision tokens", `${count - dropped.size - absent} of them`, frozen ? `${frozen} frozen` : ""]);
  if (tower.size) facts.push(["encoder layers", `${mind.data.encoder.count - tower.size} of ${mind.data.encoder.count}`, ""]);
  if (costs.parameters) {
    const kept = costs.total - sumOver(costs.parameters, dropped) - sumOver(costs.tower, tower) - narrow.reduce((sum, [, { saved }]) => sum + saved, 0);
    facts.push(["parameters", counted(kept), percent(kept / costs.total), `${kept.toLocaleString("en")} of ${costs.total.toLocaleString("en")}`]);
    facts.push(["weights", costs.width ? sized(kept * costs.width) : "not known", costs.width ? "" : costs.unsized, costs.width ? `${(kept * costs.width).toLocaleString("en")} bytes` : ""]);
  } else facts.push(["parameters and bytes", "not counted", costs.uncounted]);
  facts.push(["time of a prompt", ...timed(mind)]);
  mind.left.replaceChildren(...facts.map((one) => fact(...one)));
  drawResult(mind);
}

function timed(mind) {
  const { dropped, tower, data: { costs } } = mind;
  const measured = costs.timed[keyOf(mind)];
  if (measured) return [`${measured[0]} ×`, measured[1]];
  if (skipped(mind, "absent").length || skipped(mind, "frozen").length || narrowLayers(mind).length || (tower.size && !costs.tower_shares.length)) return ["not known", costs.untimed];
  if (!dropped.size && !tower.size) return ["1 ×", "the dense model"];
  if (!costs.shares) return ["not known", costs.untimed];
  return [`about ${(1 - sumOver(costs.shares, dropped) - sumOver(costs.tower_shares, tower)).toFixed(2)} ×`, costs.shared];
}

function fact(name, value, more, exact = "") {
  const whole = made("div", { class: exact || !more ? "" : "wide", title: [value, name, exact || more].join(" ") });
  whole.append(made("dt", {}, name), made("dd", { class: "value" }, value), made("dd", { class: "more" }, more));
  return whole;
}

// --- how much of the answers is left ---------------------------------------------------------------------------------

// What Python said of this mask, now or when it was looked at before.
function resultOf(mind) {
  const key = keyOf(mind);
  const { result } = mind.data;
  return result.edit === key ? result : (mind.results.get(key) ?? { state: "ready", seconds: result.seconds, words: "" });
}

function learn(mind) {
  const { result } = mind.data;
  if (mind.resultsOf !== result.of) mind.results = new Map();
  mind.resultsOf = result.of;
  if (result.state === "known") mind.results.set(result.edit, result);
}

function drawResult(mind) {
  const told = resultOf(mind);
  const drawn = JSON.stringify([told, mind.look.auto]);
  if (mind.resultDrawn === drawn) return;
  mind.resultDrawn = drawn;
  const lead = made("span", { class: "lead", title: told.more ?? "" }, told.words || "Not evaluated.");
  const parts = [lead];
  if (told.rows) parts.push(...chips(told.rows));
  if (["ready", "long", "failed"].includes(told.state)) parts.push(evaluateButton(told));
  if (told.state === "running") parts.push(made("progress", { value: told.share, max: 1, "aria-label": "evaluated" }));
  mind.result.replaceChildren(...parts);
}

function evaluateButton({ state, seconds }) {
  const time = seconds === null || seconds === undefined ? "" : ` (about ${Math.max(1, Math.round(seconds))} s)`;
  return made("button", { type: "button", "data-do": "evaluate" }, `${state === "failed" ? "Evaluate again" : "Evaluate now"}${time}`);
}

// Few domains stand in their order, of many the worst come first.
function chips(rows) {
  const shown = rows.length <= MOST_IN_ORDER ? rows : [...rows].sort((one, other) => (one.share ?? 2) - (other.share ?? 2));
  return shown.map(chip);
}

function chip({ name, value, interval, more }) {
  const whole = made("span", { class: "chip", title: more });
  whole.append(made("bdi", {}, name), made("b", {}, value), made("span", {}, interval));
  return whole;
}

// --- asking ----------------------------------------------------------------------------------------------------------

function watch(mind) {
  clearTimeout(mind.asking);
  const wait = timeToAsk(mind);
  mind.asking = wait === null ? null : setTimeout(() => (isLeaving() ? watch(mind) : ask(mind)), wait);
}

function timeToAsk(mind) {
  if (mind.stroke) return null;
  if (mind.askedOf !== mind.number) return REST_MS;
  const { state } = resultOf(mind);
  if (state === "running") return LOOK_MS;
  return state === "waiting" ? LATER_LOOK_MS : null;
}

function ask(mind, byHand = false) {
  flush(mind);
  mind.askedOf = mind.number;
  mind.tell("asked", { number: (mind.asks += 1), base: mind.base, by_hand: byHand });
}
