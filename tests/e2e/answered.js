// Tells in a page whether Python has answered all that the page has asked, `strata.isAnswered()`, and whether no script runs at all,
// `strata.isAtRest()`.
//
// Messages are read as they pass: what is asked (BackMsg.rerun_script) waits for the end of a run that began later, one of the whole page
// or, for what a fragment asks, any. What a page asks by the clock, as a list of running jobs does, is not waited for. A page that asks where
// files may go (BackMsg.file_urls_request) sends them there and asks then for a run.

(() => {
  const RERUN = 11, FILES = 16, NEW_RUN = 4, RUN_ENDED = 6; // fields of BackMsg and ForwardMsg
  const FRAGMENT = 5, BY_THE_CLOCK = 6; // of ClientState
  const GOES_ON = 2, OF_A_FRAGMENT = 3; // how a run ended: for another one, and of a fragment
  const CLOCK_MS = 5_000; // a page that asks by the clock may never stop running on a busy machine: by then the last answer is drawn
  const heard = new WeakSet();
  const waiting = { page: "asked", fragment: "none", files: "none" }; // "asked", "runs": a run has begun since, or "none"
  let isRunning = false, answeredAt = 0;

  const isAnswered = () => Object.values(waiting).every((state) => state === "none");

  // A message's fields by number: numbers, and the bytes of texts and messages.
  function fields(bytes) {
    const found = new Map();
    let at = 0;
    const number = () => {
      let value = 0, shift = 1;
      for (; ; shift *= 128) {
        const byte = bytes[at++];
        value += (byte & 127) * shift;
        if (byte < 128) return value;
      }
    };
    while (at < bytes.length) {
      const key = number(), kind = key & 7;
      const size = kind === 0 ? 0 : kind === 1 ? 8 : kind === 5 ? 4 : number();
      found.set(key >> 3, kind === 0 ? number() : bytes.subarray(at, at + size));
      at += size;
    }
    return found;
  }

  function asked(message) {
    const said = fields(message);
    if (said.has(FILES)) waiting.files = "asked";
    if (!said.has(RERUN)) return;
    const state = fields(said.get(RERUN));
    if (state.get(BY_THE_CLOCK)) return;
    waiting.files = "none";
    waiting[state.get(FRAGMENT)?.length ? "fragment" : "page"] = "asked";
  }

  function answered(message) {
    const said = fields(message);
    if (said.has(NEW_RUN)) {
      isRunning = true;
      for (const what of ["page", "fragment"]) if (waiting[what] === "asked") waiting[what] = "runs";
    }
    const ending = said.get(RUN_ENDED);
    if (ending === undefined) return;
    isRunning = ending === GOES_ON;
    if (isRunning) waiting.fragment = "asked"; // by the script itself
    if (isRunning || isAnswered()) return;
    if (waiting.fragment === "runs") waiting.fragment = "none";
    if (waiting.page === "runs" && ending !== OF_A_FRAGMENT) waiting.page = "none";
    if (isAnswered()) answeredAt = performance.now();
  }

  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (message) {
    if (message instanceof Uint8Array) {
      if (!heard.has(this)) this.addEventListener("message", (event) => event.data instanceof ArrayBuffer && answered(new Uint8Array(event.data)));
      heard.add(this);
      asked(message);
    }
    return send.call(this, message);
  };

  const isDrawn = () => document.querySelector("[data-testid='stApp']")?.dataset.testScriptState === "notRunning";
  const isAtRest = () => isAnswered() && ((!isRunning && isDrawn()) || performance.now() > answeredAt + CLOCK_MS);
  window.strata = { isAnswered, isAtRest };
})();
