// The address follows the edit at once, and adds no step to the browser's history: Python writes the same, and finds it there.

function tellAddress(mind) {
  const there = new URL(window.location.href);
  const said = { cut: ascending(mind.dropped), absent: skipped(mind, "absent"), frozen: skipped(mind, "frozen"), tower: ascending(mind.tower) };
  const texts = Object.entries(said).map(([name, layers]) => [name, shortened(layers).replaceAll(", ", " ")]);
  const before = there.search;
  for (const [name, text] of [...texts, ["narrow", [...mind.narrow][0] ?? ""]]) {
    if ((there.searchParams.get(name) ?? "") === text) continue;
    if (text) there.searchParams.set(name, text);
    else there.searchParams.delete(name);
  }
  if (there.search !== before) window.history.replaceState(window.history.state, "", there);
}
