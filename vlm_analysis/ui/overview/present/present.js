// Shows a document in a frame over the whole window, and full screen where the browser allows it, until the document says that it ended.
// The frame may run the document's own script and nothing else: it has an origin of its own and cannot reach this page.
const sessions = new WeakMap(); // a run of the page may draw it again while it is shown

export default function ({ parentElement, data, setTriggerValue }) {
  const session = sessions.get(parentElement) ?? {};
  sessions.set(parentElement, session);
  session.tell = () => setTriggerValue("ended", true);
  if (session.shown) return;
  session.shown = true;
  const dialog = parentElement.querySelector("dialog");
  const frame = document.createElement("iframe");
  frame.title = "Presentation";
  frame.sandbox = "allow-scripts";
  frame.style.colorScheme = data.scheme;
  frame.onload = () => frame.contentWindow.focus();
  frame.srcdoc = data.page;
  dialog.replaceChildren(frame);
  dialog.showModal();
  let wasFull = false;
  frame.requestFullscreen?.().then(() => { wasFull = true; frame.contentWindow.focus(); }, () => {}); // a dialog may not ask itself

  const end = () => {
    if (!session.shown) return;
    session.shown = false;
    stop();
    if (document.fullscreenElement) document.exitFullscreen();
    dialog.close();
    session.tell();
  };
  const heard = (event) => { if (event.source === frame.contentWindow && event.data === "strata:end") end(); };
  const left = () => { if (wasFull && !document.fullscreenElement) end(); };
  const stop = () => {
    window.removeEventListener("message", heard);
    document.removeEventListener("fullscreenchange", left);
  };
  window.addEventListener("message", heard);
  document.addEventListener("fullscreenchange", left);
  dialog.oncancel = (event) => { event.preventDefault(); end(); };
}
