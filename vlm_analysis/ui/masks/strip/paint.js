// Drawing: rows of numbers once for each recording; the edit and its columns again where a layer has changed.

function made(tag, attributes = {}, text = "") {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

function draw(mind) {
  const { data } = mind;
  mind.drawn = data.drawn;
  mind.focus = Math.min(mind.focus, data.count - 1);
  mind.section.style.setProperty("--count", data.count);
  for (const [name, colour] of Object.entries(data.colours)) mind.section.style.setProperty(`--${name}`, colour);
  const numbers = between(0, data.count - 1);
  mind.heads.replaceChildren(line(made("span", { role: "columnheader" }, "layer"), numbers.map((layer) => made("span", { role: "columnheader" }, layer))));
  mind.lines = new Map(data.rows.map((row) => [row.key, numbersRow(mind, row)]));
  mind.buttons = numbers.map((layer) => made("button", { type: "button", "data-layer": layer, tabindex: -1 }, layer));
  mind.edit = line(made("span", { role: "rowheader" }, "edit"), mind.buttons.map(inCell));
  mind.edit.classList.add("edit");
  mind.painted = [];
  visionRow(mind, numbers);
  mind.isSeen = null;
  arrange(mind);
  colour(mind);
}

// The layers that are there and narrow, each with what is left of it.
const narrowOf = (mind, layer) => mind.data.narrows[[...mind.narrow][0]]?.[layer];
const narrowLayers = (mind) => Object.entries(mind.data.narrows[[...mind.narrow][0]] ?? {}).filter(([layer]) => !mind.dropped.has(Number(layer)));

const inCell = (button) => {
  const cell = made("span", { role: "gridcell" });
  cell.append(button);
  return cell;
};

function line(head, cells) {
  const row = made("div", { role: "row", class: "line" });
  row.append(head, ...cells);
  return row;
}

function numbersRow(mind, row) {
  const head = made("span", { role: "rowheader", title: row.name, "aria-label": row.name });
  head.append(made("button", { type: "button", class: "pin", "data-pin": row.key, tabindex: -1, "aria-label": `Keep ${row.name} in view` }), made("bdi", {}, row.name));
  const cells = row.values.map((value, layer) => {
    const text = value === null ? "–" : row.digits === null ? shortly(value) : Number(value).toFixed(row.digits);
    return made("span", { role: "gridcell", "data-layer": layer, "data-row": row.key }, text);
  });
  return line(head, cells);
}

// A cell has room for six characters; the whole number stands below the strip.
function shortly(value) {
  return Number(value) > 0 && Number(value) < 0.001 ? "<.001" : value;
}

// Rows that the user keeps in view stand below with the edit, all others scroll above.
function arrange(mind) {
  const { rows } = mind.data;
  mind.look.pinned = mind.look.pinned.filter((key) => mind.lines.has(key)).slice(0, MOST_PINNED);
  const isPinned = (row) => mind.look.pinned.includes(row.key);
  mind.rows.replaceChildren(...rows.filter((row) => !isPinned(row)).map((row) => mind.lines.get(row.key)));
  mind.stuck.replaceChildren(...rows.filter(isPinned).map((row) => mind.lines.get(row.key)), mind.edit, ...(isSeen(mind) ? [mind.vision] : []));
  mind.pins = rows.map((row) => mind.lines.get(row.key).querySelector(".pin"));
  mind.pins.forEach((pin, place) => {
    pin.setAttribute("aria-pressed", isPinned(rows[place]));
    pin.tabIndex = place === 0 ? 0 : -1;
  });
}

function pin(mind, key) {
  const { pinned } = mind.look;
  if (!pinned.includes(key) && pinned.length === MOST_PINNED) return say(mind, "Three rows are kept in view already. Let one of them go first.");
  mind.look.pinned = pinned.includes(key) ? pinned.filter((one) => one !== key) : [...pinned, key];
  arrange(mind);
  send(mind);
}

function colour(mind) {
  const { rows, scales } = mind.data;
  const { scale } = mind.look;
  mind.scale.value = scale;
  for (const row of rows) {
    const { palette } = scales.find((one) => one.kind === row.kind);
    [...mind.lines.get(row.key).querySelectorAll("[data-layer]")].forEach((cell, layer) => {
      const [colour, ink] = palette[row[scale][layer]] ?? ["", ""];
      cell.classList.toggle("missing", !colour);
      cell.style.backgroundColor = colour;
      cell.style.color = ink;
    });
  }
  mind.legend.replaceChildren(...scales.flatMap((one) => legend(one, scale)));
}

function legend({ unit, palette, ...ends }, scale) {
  const bar = made("span", { class: "bar-of-colours" });
  bar.style.background = `linear-gradient(to right, ${palette.map(([colour]) => colour).join(", ")})`;
  const whole = made("span", { class: "scale-of" }, `${unit} ${ends[scale][0]} `);
  whole.append(bar, ` ${ends[scale][1]}`);
  return [whole];
}

// --- the edit --------------------------------------------------------------------------------------------------------

function state(mind, layer) {
  const { locked, protected: risky, changed, unprotected } = mind.data;
  const narrow = narrowOf(mind, layer);
  const facts = [
    risky[layer] !== undefined && `, protected: ${risky[layer]}`,
    changed[layer] !== undefined && `, changed: ${changed[layer]}`,
    layer === mind.ghost && `, next by ${mind.data.next.title}`,
  ];
  if (narrow && !mind.dropped.has(layer)) facts.unshift(`, ${narrow.words}`);
  const after = facts.filter(Boolean).join("");
  if (locked[layer] !== undefined) return { look: "locked", mark: "L", name: `locked: ${locked[layer]}${after}` };
  if (mind.own.has(layer)) return { look: "locked", mark: "K", name: `locked: you keep it${after}` };
  if (mind.dropped.has(layer)) return { look: "cut", mark: "×", name: `cut${after}` };
  if (narrow) return { look: "narrow", mark: narrow.mark, name: `kept${after}`, share: narrow.mark };
  if (risky[layer] !== undefined) return { look: unprotected ? "kept" : "locked", mark: "P", name: `kept${after}` };
  return { look: changed[layer] !== undefined ? "changed" : "kept", mark: changed[layer] !== undefined ? "~" : "", name: `kept${after}` };
}

// The layer that the criterion would drop next beside those that are dropped; null where it has none.
function nextToGo(mind) {
  const { next } = mind.data;
  if (next.criterion !== mind.look.next_by) return null;
  return next.order.find((layer) => !mind.dropped.has(layer) && !refusal(mind, layer, mind.dropped)) ?? null;
}

function paint(mind) {
  mind.ghost = nextToGo(mind);
  paintVision(mind);
  paintEncoder(mind);
  mind.buttons.forEach((button, layer) => {
    const { look, mark, name, share } = state(mind, layer);
    const ghost = layer === mind.ghost;
    const focused = mind.row === "text" && layer === mind.focus;
    const key = `${look} ${mark} ${name} ${focused} ${ghost}`;
    if (mind.painted[layer] === key) return;
    mind.painted[layer] = key;
    button.className = ghost ? `${look} ghost` : look;
    button.dataset.mark = mark;
    button.style.setProperty("--share", share ?? "100%");
    button.tabIndex = focused ? 0 : -1;
    button.setAttribute("aria-label", `layer ${layer}, ${name}`);
    button.setAttribute("aria-pressed", look === "cut");
    for (const one of mind.lines.values()) {
      const { classList } = one.children[layer + 1];
      classList.toggle("gone", look === "cut");
      classList.toggle("ghost", ghost);
    }
  });
  const { count } = mind.data;
  const dropped = now(mind)[0];
  mind.count.textContent = `${dropped.length} of ${count} layers dropped: ${dropped.join(", ") || "none"}${narrowWords(mind)}`;
  mind.count.title = narrowWords(mind) && "The number in the corner of a narrow layer is the share of its parameters that is left.";
  if (mind.typed !== mind.typed.getRootNode().activeElement) mind.typed.value = shortened(dropped);
  history(mind);
  beside(mind);
}

function narrowWords(mind) {
  const many = narrowLayers(mind).length;
  return many ? `; ${many} narrow` : "";
}

// What can be chosen below the strip.
function choices(mind) {
  const { next } = mind.data;
  const drawn = JSON.stringify([next.choices, next.why]);
  if (mind.choicesDrawn !== drawn) {
    const options = [["", "nothing"], ...next.choices].map(([value, title]) => made("option", { value }, title));
    mind.next.replaceChildren(...options);
    mind.choicesDrawn = drawn;
  }
  mind.look.next_by ??= next.criterion;
  mind.next.value = mind.look.next_by;
  mind.next.title = next.why;
  mind.auto.checked = mind.look.auto;
}

function history(mind) {
  const button = (name) => mind.section.querySelector(`[data-do="${name}"]`);
  button("undo").disabled = !mind.undo.length;
  button("redo").disabled = !mind.redo.length;
  button("clear").disabled = ["dropped", "absent", "frozen", "narrow", "tower"].every((part) => !mind[part].size);
  button("whole").hidden = !mind.narrow.size;
  button("lock").disabled = false;
  button("lock").textContent = `${mind.own.has(mind.focus) ? "Unlock" : "Lock"} layer ${mind.focus}`;
}

function say(mind, text) {
  mind.said.textContent = text;
}

function tellAbout(mind, cell) {
  const layer = Number(cell.dataset.layer);
  const row = mind.data.rows.find((one) => one.key === cell.dataset.row);
  if (!row) mind.about.textContent = cell.getAttribute("aria-label");
  else {
    const { unit, missing } = mind.data.scales.find((one) => one.kind === row.kind);
    const value = row.values[layer] === null ? missing : `${unit} ${row.values[layer]}`;
    mind.about.textContent = `layer ${layer}, ${row.name}: ${value}; ${state(mind, layer).name}`;
  }
}
