// What is sent between the click on a link to another page and that page's arrival, Streamlit answers for the page that is left: the new one
// would stay empty. So nothing is sent by itself in that time.

const LEAVING_MS = 120_000; // at most, as a busy machine takes its time: then the link has led nowhere
let leftAt = -Infinity;
let here = window.location.pathname;

const isLeaving = () => performance.now() < leftAt + LEAVING_MS;

function arrive() {
  leftAt = -Infinity;
  here = window.location.pathname;
}

function follow(event) {
  const link = event.target.closest?.("a[href]");
  const isElsewhere = event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.button || link?.target === "_blank";
  if (link && !isElsewhere && link.pathname !== window.location.pathname) leftAt = performance.now();
}

document.addEventListener("click", follow, true);
// Back and forward may stay on the page.
window.addEventListener("popstate", () => window.location.pathname !== here && (leftAt = performance.now()));
