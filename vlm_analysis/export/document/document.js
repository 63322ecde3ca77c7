// The presentation: the document's own steps, one at a time over the whole window. The file reads and prints without it.
const root = document.documentElement;
const slides = [...document.querySelectorAll(".slide")];
const bar = document.querySelector("nav");
const embedded = "start" in root.dataset;
let at = 0;
let wasFull = false;

function show(place) {
  slides[at].classList.remove("now");
  at = Math.max(0, Math.min(slides.length - 1, place));
  slides[at].classList.add("now");
  bar.querySelector("output").textContent = `${at + 1} of ${slides.length}`;
}

function begin() {
  document.activeElement?.blur();
  root.classList.add("presenting");
  bar.hidden = false;
  show(at);
  if (!embedded) root.requestFullscreen?.().then(() => { wasFull = true; }, () => {}); // not allowed: the window is filled
}

function end() {
  if (!root.classList.contains("presenting")) return;
  if (embedded) return parent.postMessage("strata:end", "*");
  root.classList.remove("presenting");
  slides[at].classList.remove("now");
  bar.hidden = true;
  if (document.fullscreenElement) document.exitFullscreen();
  wasFull = false;
  slides[at].scrollIntoView({ block: "center" });
}

const moves = {
  ArrowRight: () => at + 1, ArrowDown: () => at + 1, PageDown: () => at + 1, Enter: () => at + 1,
  ArrowLeft: () => at - 1, ArrowUp: () => at - 1, PageUp: () => at - 1, Backspace: () => at - 1,
  Home: () => 0, End: () => slides.length - 1,
};

addEventListener("keydown", (event) => {
  if (!root.classList.contains("presenting") || event.ctrlKey || event.altKey || event.metaKey) return;
  const move = event.key === " " ? () => at + (event.shiftKey ? -1 : 1) : moves[event.key];
  if (event.key === "Escape") end();
  else if (move && !(event.target.closest?.("button") && [" ", "Enter"].includes(event.key))) {
    event.preventDefault();
    show(move());
  }
});

let touch = null;
addEventListener("touchstart", (event) => { touch = event.touches.length === 1 ? event.touches[0] : null; }, { passive: true });
addEventListener("touchend", (event) => {
  if (!touch || !root.classList.contains("presenting")) return;
  const [dx, dy] = [event.changedTouches[0].clientX - touch.clientX, event.changedTouches[0].clientY - touch.clientY];
  if (Math.abs(dx) > 40 && Math.abs(dx) > Math.abs(dy)) show(at - Math.sign(dx));
});
document.addEventListener("fullscreenchange", () => { if (wasFull && !document.fullscreenElement) end(); });

const [back, on, close] = bar.querySelectorAll("button");
back.onclick = () => show(at - 1);
on.onclick = () => show(at + 1);
close.onclick = end;
const button = document.querySelector("header button");
button.hidden = !slides.length;
button.onclick = begin;
if (embedded && slides.length) begin();
