// What the access tests ask of a page: what is drawn and not said, and where the keyboard goes.
window.access = (() => {
  const seen = (element) => element.getClientRects().length > 0 && getComputedStyle(element).visibility !== "hidden";
  const start = (element) => element.outerHTML.slice(0, 200);

  // --- charts, tables, icons ---------------------------------------------------------------------------------------

  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => rgb.reduce((sum, part, place) => sum + linear(part / 255) * [0.2126, 0.7152, 0.0722][place], 0);
  const TEXTS = "[class$='tick'] text, text[class$='title'], .legendtext, .cbaxis text, .cbtitle text";

  // Text of a chart beside what it plots, which axe-core does not look at.
  function isFaint(text) {
    const ground = numbers(getComputedStyle(document.querySelector("[data-testid='stApp']")).backgroundColor).slice(0, 3);
    const { fill, fillOpacity, opacity } = getComputedStyle(text);
    const [red, green, blue, alpha = 1] = numbers(fill);
    const shown = alpha * fillOpacity * opacity;
    const ink = [red, green, blue].map((part, place) => shown * part + (1 - shown) * ground[place]);
    const [low, high] = [light(ink), light(ground)].sort((one, other) => one - other);
    return (high + 0.05) / (low + 0.05) < 4.5;
  }

  function unsaid() {
    const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
    const isSymbol = (element) => getComputedStyle(element).fontFamily.includes("Material") && !element.children.length && element.textContent;
    return [
      ...all(".js-plotly-plot").filter((chart) => !chart.closest("[role='figure'][aria-label]")).map((chart) => `chart without a label: ${start(chart)}`),
      ...all(TEXTS).filter(isFaint).map((text) => `faint text of a chart: ${text.textContent}, ${getComputedStyle(text).fill}`),
      ...all("[data-testid='stDataFrame'], [data-testid='stTable']")
        .filter((table) => !table.closest("[aria-label]") && !table.querySelector("[aria-label]"))
        .map((table) => `table without a label: ${start(table)}`),
      ...all("span, i")
        .filter((element) => isSymbol(element) && !element.closest("[aria-hidden='true'], [role='img'][aria-label]"))
        .map((icon) => `icon that is read out: ${start(icon)}`),
    ];
  }

  // --- the way of the Tab key --------------------------------------------------------------------------------------

  function look(element, pseudo) {
    const style = getComputedStyle(element, pseudo);
    const names = ["boxShadow", "borderColor", "backgroundColor", "color", "opacity", "visibility"];
    return [style.outlineStyle === "none" ? "" : style.outline, ...names.map((name) => style[name])].join();
  }

  // A ring is drawn on parents and neighbours too.
  function around(element) {
    const above = [element];
    while (above.length < 4 && above.at(-1).parentElement) above.push(above.at(-1).parentElement);
    const near = [...above, ...[...(above[1]?.querySelectorAll("*") ?? [])].slice(0, 40)];
    return near.flatMap((one) => [look(one), look(one, "::before"), look(one, "::after")]).join("|");
  }

  const inside = (root) => [...root.querySelectorAll("*")].flatMap((one) => [one, ...(one.shadowRoot ? inside(one.shadowRoot) : [])]);
  const unfocused = new Map();
  const stops = [];

  // Remembers how all looks without the focus, and goes to where Tab begins.
  function begin() {
    Object.assign(document.body, { tabIndex: -1 }).focus();
    document.body.removeAttribute("tabindex");
    stops.length = 0;
    unfocused.clear();
    for (const element of inside(document)) if (element.tabIndex >= 0) unfocused.set(element, around(element));
  }

  function stop() {
    let element = document.activeElement;
    while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
    if (!element || element === document.body) return null;
    const again = stops.indexOf(element);
    if (again >= 0) return { again };
    stops.push(element);
    const before = unfocused.get(element);
    const { outlineStyle, boxShadow } = getComputedStyle(element);
    const shows = before === undefined ? outlineStyle !== "none" || boxShadow !== "none" : before !== around(element);
    const is_grid = element.tagName === "CANVAS" || element.getAttribute("role") === "gridcell"; // a table's picture, or its cells
    return { name: start(element), shows, is_grid, is_seen: element.getClientRects().length > 0 };
  }

  return { unsaid, begin, stop, last: () => stops.at(-1) };
})();
