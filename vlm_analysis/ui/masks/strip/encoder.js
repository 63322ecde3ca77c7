// The layers of the vision encoder: a small strip of their own below, in the same edit and the same history.

const ENCODER = ["count", "heads", "rows", "edit", "about", "said", "guarded", "many", "propose", "restore"];

function findEncoder(place) {
  const whole = place.querySelector(".encoder");
  return Object.fromEntries([["whole", whole], ["focus", 0], ...ENCODER.map((name) => [name, whole.querySelector(`.of-${name}`)])]);
}

function drawEncoder(mind) {
  const { encoder: at, data: { encoder } } = mind;
  const drawn = JSON.stringify([encoder, mind.look.scale]);
  if (at.drawn === drawn) return;
  at.drawn = drawn;
  at.whole.hidden = !encoder;
  if (!encoder) return;
  at.whole.style.setProperty("--count", encoder.count);
  const numbers = between(0, encoder.count - 1);
  at.focus = Math.min(at.focus, encoder.count - 1);
  at.heads.replaceChildren(line(made("span", { role: "columnheader" }, "layer"), numbers.map((layer) => made("span", { role: "columnheader" }, layer))));
  at.rows.replaceChildren(...encoder.rows.map((row) => similarityRow(mind, row)));
  at.buttons = numbers.map((layer) => made("button", { type: "button", "data-layer": layer, tabindex: -1 }, layer));
  const edit = line(made("span", { role: "rowheader" }, "vision encoder"), at.buttons.map(inCell));
  edit.classList.add("of-tower");
  at.edit.replaceChildren(edit);
  at.painted = [];
  at.guarded.textContent = encoder.guarded;
  at.many.max = Math.max(mostToGo(mind), 1);
  at.many.value = Math.min(at.many.value, at.many.max);
  at.many.disabled = at.propose.disabled = !mostToGo(mind);
  at.propose.title = encoder.why;
}

function similarityRow({ look, data: { encoder } }, row) {
  const { palette } = encoder.scales[0];
  const cells = row.values.map((value, layer) => {
    const cell = made("span", { role: "gridcell", "data-layer": layer, "data-row": row.key }, value === null ? "–" : Number(value).toFixed(row.digits));
    const [colour, ink] = palette[row[look.scale][layer]] ?? ["", ""];
    cell.classList.toggle("missing", !colour);
    Object.assign(cell.style, { backgroundColor: colour, color: ink });
    return cell;
  });
  return line(made("span", { role: "rowheader" }, row.name), cells);
}

// One layer must stay.
const mostToGo = ({ data: { encoder } }) => Math.min(encoder.order.length, encoder.count - 1);

function encoderState(mind, layer) {
  const { unprotected, encoder: { locked, protected: risky, unread } } = mind.data;
  const facts = [risky[layer] !== undefined && `, protected: ${risky[layer]}`, unread.includes(layer) && ", runs for nothing: nothing reads what comes out"];
  const after = facts.filter(Boolean).join("");
  if (locked[layer] !== undefined) return { look: "locked", mark: "L", name: `locked: ${locked[layer]}` };
  if (mind.tower.has(layer)) return { look: "cut", mark: "×", name: `cut${after}` };
  if (risky[layer] !== undefined) return { look: unprotected ? "kept" : "locked", mark: "P", name: `kept${after}` };
  return { look: "kept", mark: "", name: `kept${after}` };
}

// Why a layer of the vision encoder cannot be dropped beside these; "" where it can.
function encoderRefusal({ data: { unprotected, encoder } }, layer, dropped) {
  const { locked, protected: risky, count } = encoder;
  if (locked[layer] !== undefined) return `Layer ${layer} of the vision encoder is locked: ${locked[layer]}. It cannot be dropped.`;
  if (risky[layer] !== undefined && !unprotected)
    return `Layer ${layer} of the vision encoder is protected: ${risky[layer]}. Let protected layers go too, below.`;
  return dropped.size + 1 === count ? "One layer of the vision encoder must stay. Keep another one first." : "";
}

// Drop these layers of the vision encoder, or keep them; why others stay is shown.
function putTower(mind, layers, drop) {
  const dropped = new Set(mind.tower);
  const reasons = [];
  for (const layer of layers) {
    const reason = drop && !dropped.has(layer) ? encoderRefusal(mind, layer, dropped) : "";
    if (reason) reasons.push(reason);
    else if (drop) dropped.add(layer);
    else dropped.delete(layer);
  }
  mind.encoder.said.textContent = reasons.slice(0, MOST_REASONS).join(" ");
  return change(mind, { tower: dropped });
}

// The layers of highest similarity, as `make_tower` chooses them, in place of those that are dropped.
function propose(mind) {
  const { many } = mind.encoder;
  many.value = Math.min(Math.max(Math.round(Number(many.value)) || 1, 1), mostToGo(mind));
  mind.encoder.said.textContent = "";
  change(mind, { tower: mind.data.encoder.order.slice(0, many.value) });
}

function paintEncoder(mind) {
  drawEncoder(mind);
  const { encoder: at, data: { encoder } } = mind;
  if (!encoder) return;
  at.buttons.forEach((button, layer) => {
    const { look, mark, name } = encoderState(mind, layer);
    const key = `${look} ${mark} ${name} ${layer === at.focus}`;
    if (at.painted[layer] === key) return;
    at.painted[layer] = key;
    button.className = look;
    button.dataset.mark = mark;
    button.tabIndex = layer === at.focus ? 0 : -1;
    button.setAttribute("aria-label", `layer ${layer} of the vision encoder, ${name}`);
    button.setAttribute("aria-pressed", look === "cut");
  });
  const dropped = ascending(mind.tower);
  at.count.textContent = `${dropped.length} of ${encoder.count} layers of the vision encoder dropped: ${dropped.join(", ") || "none"}`;
  at.restore.disabled = !dropped.length;
}

function tellOfEncoder(mind, cell) {
  const { encoder } = mind.data;
  const layer = Number(cell.dataset.layer);
  const [row] = encoder.rows;
  const [{ unit, missing }] = encoder.scales;
  const value = row.values[layer] === null ? missing : `${unit} ${row.values[layer]}`;
  mind.encoder.about.textContent = `layer ${layer} of the vision encoder: ${value}; ${encoderState(mind, layer).name}`;
}

function listenEncoder(mind) {
  const at = mind.encoder;
  const cellIn = (event) => event.target.closest?.("[data-layer]");
  const goTo = (layer) => {
    at.focus = layer;
    paintEncoder(mind);
    at.buttons[layer].focus();
  };
  at.whole.addEventListener("click", (event) => {
    const cell = cellIn(event);
    if (!cell) return;
    const layer = Number(cell.dataset.layer);
    const anchor = event.shiftKey ? at.focus : layer;
    putTower(mind, between(anchor, layer), event.shiftKey ? mind.tower.has(anchor) : !mind.tower.has(layer));
    goTo(layer);
  });
  at.whole.addEventListener("keydown", (event) => {
    const last = mind.data.encoder.count - 1;
    const to = { ArrowLeft: at.focus - 1, ArrowRight: at.focus + 1, Home: 0, End: last }[event.key];
    if (!cellIn(event) || to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (to < 0 || to > last) return;
    if (event.shiftKey) putTower(mind, between(at.focus, to), mind.tower.has(at.focus));
    goTo(to);
  });
  for (const look of ["pointerover", "focusin"]) at.whole.addEventListener(look, (event) => cellIn(event) && tellOfEncoder(mind, cellIn(event)));
}
