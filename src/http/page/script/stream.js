// The live stream that all windows of a browser share. A browser opens at most six HTTP/1.1 connections to a server, so
// six windows with a stream of their own would leave none for pages. One visible window, the leader, holds a lock and
// the stream, and passes the events on to the other visible windows. A hidden window has no part in this. If the leader
// is hidden or closed, the browser gives the lock to the next window, which then opens the stream.
//
// Browsers have locks only on pages from https or from the same machine. Without locks, each visible window has a stream
// of its own.

const LOST_AFTER_MS = 6000; // three heartbeats of the server
const RETRY_MAX_MS = 10000; // maximum wait before a reconnect
const EVENTS = ["hello", "latest", "beat"];

// Calls `onEvent(name, data)` for each event of the server, `onLost()` when the connection is lost, and `onWait()` when
// the window begins to wait for its first event.
const shareStream = ({ onEvent, onLost, onWait }) => {
  // Windows with another version of this script may need other events.
  const name = `silkrate live ${document.currentScript.src}`;
  const isShared = Boolean(window.BroadcastChannel && navigator.locks);
  const channel = isShared ? new BroadcastChannel(name) : null;
  const id = `${Date.now()} ${Math.random()}`;

  let role = "none"; // "none" while hidden, "lead" with the lock, else "follow"
  let source = null;
  let isLost = false;
  let isComplete = false; // whether a follower has everything that the leader has
  let heardAt = 0; // when the last event or message arrived
  let retryMs = 1000;
  let retryTimer = 0;
  let waiting = null; // ends the wait for the lock
  let release = null; // gives the lock back

  // What a window needs that joins later: the newest `hello`, the last complete `latest`, and the rows after it.
  let seen = null;

  const remember = (event, data) => {
    if (event === "hello") seen.hello = { ...data, now: undefined };
    if (event !== "latest") return;
    if (data.all) seen = { ...seen, all: data, rows: new Map() };
    else for (const [row, html] of data.rows) seen.rows.set(row, html);
    seen.head = data.head;
  };

  const post = (message) => channel?.postMessage(message);

  const deliver = (event, data) => {
    heardAt = performance.now();
    isLost = false;
    onEvent(event, data);
  };

  // --- the leader ---------------------------------------------------------------------------------------------------

  const connect = () => {
    retryTimer = 0;
    source?.close();
    heardAt = performance.now();
    source = new EventSource("/live");
    for (const event of EVENTS) {
      source.addEventListener(event, (message) => {
        const data = JSON.parse(message.data);
        retryMs = 1000;
        remember(event, data);
        post({ kind: "event", event, data });
        deliver(event, data);
      });
    }
    source.onerror = lose;
  };

  // Reconnects, since browsers do not reconnect after every kind of failure.
  const lose = () => {
    isLost = true;
    onLost();
    post({ kind: "alive", isLost });
    if (retryTimer) return;
    source.close();
    retryTimer = setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 1.5, RETRY_MAX_MS);
  };

  const lead = () => {
    role = "lead";
    seen = { hello: null, all: null, rows: new Map(), head: null };
    connect();
  };

  const stop = () => {
    source?.close();
    source = null;
    clearTimeout(retryTimer);
    retryTimer = 0;
    release?.();
    release = null;
  };

  const answer = (to) => {
    if (seen?.hello) post({ kind: "event", to, event: "hello", data: seen.hello });
    if (seen?.all) {
      post({ kind: "event", to, event: "latest", data: seen.all });
      post({ kind: "event", to, event: "latest", data: { all: false, head: seen.head, rows: [...seen.rows] } });
    }
    post({ kind: "alive", isLost });
  };

  // --- a follower ---------------------------------------------------------------------------------------------------

  const hold = () =>
    new Promise((resolve) => {
      // The window may have been hidden after the browser granted the lock.
      if (role === "none") return resolve();
      waiting = null;
      release = resolve;
      lead();
    });

  // Waits for the lock. `steal` takes it from a leader that does not respond.
  const wait = (steal) => {
    waiting?.abort();
    waiting = steal ? null : new AbortController();
    const options = steal ? { steal } : { signal: waiting.signal };
    navigator.locks.request(name, options, hold).catch((error) => {
      // The browser refuses locks to this page.
      if (error.name !== "AbortError" && role === "follow") return lead();
      // Another window has taken the lock from this window, which did not respond for some time.
      if (role !== "lead") return;
      release = null;
      stop();
      follow();
    });
  };

  const follow = () => {
    role = "follow";
    isComplete = false;
    isLost = false;
    heardAt = performance.now();
    onWait();
    post({ kind: "join", from: id });
    wait(false);
  };

  const receive = ({ data: message }) => {
    if (message.kind === "join") {
      if (role === "lead") answer(message.from);
      return;
    }
    if (role !== "follow" || (message.to && message.to !== id)) return;
    heardAt = performance.now();
    if (message.kind === "event") {
      // A complete state begins with `hello`. Events before it change rows that this window may not have.
      isComplete ||= message.event === "hello";
      if (isComplete) deliver(message.event, message.data);
    } else if (message.isLost && !isLost) {
      isLost = true;
      onLost();
    }
  };

  // --- visibility ---------------------------------------------------------------------------------------------------

  const enter = () => {
    if (role !== "none") return;
    if (isShared) follow();
    else {
      onWait();
      lead();
    }
  };

  const leave = () => {
    role = "none";
    waiting?.abort();
    waiting = null;
    stop();
  };

  const check = () => (document.visibilityState === "visible" ? enter() : leave());
  channel?.addEventListener("message", receive);
  document.addEventListener("visibilitychange", check);
  addEventListener("pagehide", leave);
  addEventListener("pageshow", check);
  setInterval(() => {
    const isSilent = performance.now() - heardAt > LOST_AFTER_MS;
    if (role === "lead") {
      if (isSilent) lose();
      else post({ kind: "alive", isLost });
    } else if (role === "follow" && isSilent) {
      onLost();
      heardAt = performance.now();
      wait(true);
    }
  }, 1000);
  check();
};
